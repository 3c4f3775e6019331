"""Classes as words: what a language model answers in the place of a head's numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mpt.checks import check_token_ids, received
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.data.columns import as_columns
from keras_mpt.data.texts import RESPONSES, TEXT_NAMES
from keras_mpt.fitting.streams import is_stream
from keras_mpt.fitting.text import tokens_alone
from keras_mpt.prompts.task_ids import check_task_ids
from keras_mpt.types import Data, Preprocessor


@dataclasses.dataclass(frozen=True)
class LabelWords:
    """Each task's words, one per class, and their tokens.

    Attributes:
        task_names: list of T strings, or `None` in a model without tasks, where T is 1.
        words: list of T lists of words, in the order of classes; one without any is of a task that
            has none.
        token_ids: int32 array (T, C, N), padded with zeros on the right. C: the most classes of a
            task; N: the most tokens of a word.
        sizes: int32 array (T, C). How many tokens each word has; 0 where a task has no such class.
    """

    task_names: Sequence[str] | None
    words: list[list[str]]
    token_ids: np.ndarray
    sizes: np.ndarray

    @property
    def num_classes(self) -> np.ndarray:
        """Each task's number of classes, int (T,); 0 where it has no words."""
        return np.asarray([len(own) for own in self.words])

    @property
    def longest(self) -> int:
        """N, the tokens of the longest word; 0 where there are none."""
        return int(self.token_ids.shape[2])

    @property
    def longest_of_tasks(self) -> np.ndarray:
        """The tokens of each task's longest word, int (T,); 0 where it has none."""
        return np.asarray(self.sizes.max(axis=1, initial=0))

    def tokens(self, task: int, label: int) -> np.ndarray:
        """The tokens of one word, int32 (n,).

        Args:
            task: int. The task's id; 0 in a model without tasks.
            label: int. The class.
        """
        return self.token_ids[task, label, : self.sizes[task, label]]

    def tasks_of_rows(self, task_ids: np.ndarray | None, rows: int) -> np.ndarray:
        """Each row's task (B,), all of which have words; 0 in a model without tasks.

        Args:
            task_ids: int array (B,), or `None` without tasks.
            rows: int. B.

        Raises:
            ValueError: a row of a task that has no words.
        """
        tasks = np.zeros(rows, "int32") if task_ids is None else np.asarray(task_ids)
        without = [k for k in np.unique(tasks).tolist() if not self.words[k]]
        if without and self.task_names is None:
            raise ValueError(
                "`label_words` should be in the config for labels to be words: one per class. "
                "Received: label_words=None"
            )
        if without:
            assert self.task_names is not None
            having = [n for n, own in zip(self.task_names, self.words, strict=True) if own]
            raise ValueError(
                "`label_words` in the config should be of each task whose labels are asked for, so "
                f"also of task {self.task_names[without[0]]!r}. Received: label_words of tasks "
                f"{having}"
            )
        return tasks


def label_words(
    config: PromptTuningConfig,
    preprocessor: Preprocessor | None,
    vocabulary_size: int,
    one_token: bool = False,
) -> LabelWords:
    """The words of a config's `label_words` as tokens.

    Args:
        config: the config. Without words in it no task has any.
        preprocessor: keras-hub preprocessor whose tokenizer is asked, or `None`.
        vocabulary_size: int. V.
        one_token: bool. Whether a word must have one token. Defaults to `False`.

    Raises:
        ValueError: words without a preprocessor, words without tokens, of too many, outside the
            vocabulary or unknown to the tokenizer, or two of a task that begin with the same token.
    """
    task_names, given = None, config.label_words
    words = [given or []]
    if isinstance(config, MultitaskPromptTuningConfig):
        task_names = config.names
        words = [(given or {}).get(name, []) for name in task_names]
    if given and preprocessor is None:
        raise ValueError(
            "`preprocessor` should be given to a model with `label_words`, whose tokens its "
            f"tokenizer knows. Received: preprocessor=None with label_words={received(given)}"
        )
    tokens = [[tokens_alone(preprocessor, word) for word in own] for own in words]
    most = max(map(len, words)), max((len(t) for own in tokens for t in own), default=0)
    ids, sizes = (np.zeros((len(words), *shape), "int32") for shape in (most, most[:1]))
    for task, own in enumerate(tokens):
        of = "" if task_names is None else f" of task {task_names[task]!r}"
        _check_tokens(words[task], own, of, one_token)
        _check_known(words[task], own, of, preprocessor)
        for label, found in enumerate(own):
            check_token_ids("label_words", found, vocabulary_size)
            ids[task, label, : len(found)], sizes[task, label] = found, len(found)
    return LabelWords(task_names, words, ids, sizes)


def have_words(model_inputs: Any, x: Data) -> bool:
    """Whether data are rows of text in memory, each of a task with label words.

    Args:
        model_inputs: a model's `ModelInputs`.
        x: what `predict` was given.
    """
    if not model_inputs.config.label_words or model_inputs.preprocessor is None or is_stream(x):
        return False
    x = as_columns(x)
    if not isinstance(x, dict):
        return not model_inputs.has_tasks
    task_ids = x.get("task_ids")
    # Prompts with responses of their own are no questions.
    is_text = any(name in x for name in TEXT_NAMES) and RESPONSES not in x
    if not is_text or (task_ids is None and model_inputs.has_tasks):
        return False
    names = model_inputs.task_names
    tasks = check_task_ids(task_ids, len(names), None, names) if model_inputs.has_tasks else 0
    return bool((model_inputs.label_words.num_classes[tasks] > 0).all())


def _check_tokens(words: list[str], tokens: list[np.ndarray], of: str, one_token: bool) -> None:
    """Refuses words that a model could not give, or not tell apart."""
    first: dict[int, str] = {}
    for word, found in zip(words, tokens, strict=True):
        if not len(found):
            raise ValueError(
                "`label_words` should have at least one token each. Received: label_words"
                f"{of} with {word!r}, which has none"
            )
        if one_token and len(found) > 1:
            raise ValueError(
                "`label_words` should have one token each in a masked language model, where a mask "
                f"stands for one. Received: label_words{of} with {word!r}, which has {len(found)}"
            )
        other = first.setdefault(int(found[0]), word)
        if other != word:
            raise ValueError(
                "`label_words` of one task should differ in their first token, with which a model "
                "chooses among them: other words will do, or mostly the same ones behind a space. "
                f"Received: label_words{of} with {other!r} and {word!r}, which both begin with "
                f"token {int(found[0])}"
            )


def _check_known(
    words: list[str], tokens: list[np.ndarray], of: str, preprocessor: Preprocessor | None
) -> None:
    """Refuses words that a tokenizer gives its unknown token for: any other unknown word has it."""
    if not words or preprocessor is None:  # A tokenizer that is being loaded knows nothing yet.
        return
    unknown = _unknown_id(preprocessor.tokenizer)
    for word, found in zip(words, tokens, strict=True):
        if unknown is not None and unknown in found:
            raise ValueError(
                "`label_words` should be of tokens that the tokenizer knows. Received: label_words"
                f"{of} with {word!r}, in which it finds its unknown token, {unknown}"
            )


def _unknown_id(tokenizer: Any) -> int | None:
    """The token that stands for what a tokenizer does not know; `None` where there is none."""
    import keras_hub

    name = getattr(tokenizer, "oov_token", None)
    if name is None and isinstance(tokenizer, keras_hub.tokenizers.SentencePieceTokenizer):
        name = "<unk>"  # Also where it is called otherwise: an unknown name has that token.
    return None if name is None else int(tokenizer.token_to_id(name))
