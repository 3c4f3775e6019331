"""Contextual calibration: answers less what a model answers to texts that say nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mpt.checks import check_utf8, received
from keras_mpt.decoding.candidates import Candidates
from keras_mpt.decoding.generation_inputs import Text, tokenized
from keras_mpt.fitting.model_inputs import ModelInputs

# Zhao et al. 2021, section 5.
CONTENT_FREE = ("", "N/A", "[MASK]")


@dataclasses.dataclass(frozen=True)
class ContentFree:
    """Texts without content, to be scored under each different task and list of candidates.

    Attributes:
        texts: list of N strings.
        rows: int array (N,). Each one's row among those to calibrate: it has that row's task and
            candidates.
        groups: int array (N,). Each one's group: the rows of one task with one list of candidates.
        of_rows: int array (B,). The group of each row to calibrate.
    """

    texts: list[str]
    rows: np.ndarray
    groups: np.ndarray
    of_rows: np.ndarray

    def calibrated(self, scores: np.ndarray, content_free: np.ndarray) -> np.ndarray:
        """Scores less the logarithm of what the texts without content have, (B, C).

        Args:
            scores: float array (B, C), −∞ where a row has no such candidate.
            content_free: float array (N, C), those of the texts.

        Raises:
            ValueError: a candidate of a probability of 0 without content.
        """
        p = probabilities(content_free).astype("float64")
        prior = np.stack([p[self.groups == k].mean(axis=0) for k in range(self.groups.max() + 1)])
        is_there = ~np.isneginf(scores)
        found = np.where(is_there, prior[self.of_rows], 1)
        if not found.all():
            row, which = np.argwhere(found == 0)[0]
            raise ValueError(
                "`calibrate` should be texts after which each candidate has a probability above 0. "
                f"Received: texts after which candidate {which} of row {row} has none"
            )
        return np.asarray(scores - np.log(found), "float32")


def content_free(
    calibrate: Any,
    model_inputs: ModelInputs,
    inputs: Any,
    rows: int,
    tasks: np.ndarray | None,
    of: Candidates,
) -> ContentFree:
    """What to score before answers are calibrated.

    Args:
        calibrate: `True`, a list of texts, or a dict of task name to such a list.
        model_inputs: the model's inputs.
        inputs: what `score` was given.
        rows: int. B.
        tasks: int array (B,), each row's task; `None` without tasks.
        of: the rows' candidates.

    Raises:
        ValueError: something else, no texts for a row's task, or a model or inputs that texts
            without content cannot stand for.
    """
    preprocessor = model_inputs.preprocessor
    has_decoder_text = isinstance(inputs, dict) and inputs.get("decoder_text") is not None
    if preprocessor is None or has_decoder_text:
        reason = "decoder text of their own" if has_decoder_text else "no preprocessor to read text"
        raise ValueError(
            f"`calibrate` should be False where there is {reason}: texts without content take the "
            f"inputs' place. Received: calibrate={received(calibrate)}"
        )
    keys: dict[tuple[int, bytes], int] = {}
    texts: list[str] = []
    first: list[int] = []
    groups: list[int] = []
    of_rows = np.zeros(rows, "int32")
    lists = of.lists_of(np.arange(rows))
    for row in range(rows):
        task = 0 if tasks is None else int(tasks[row])
        key = task, of.key_of(lists[row])
        if key not in keys:
            keys[key] = len(keys)
            name = None if tasks is None else model_inputs.task_names[task]
            own = _texts(calibrate, name, model_inputs)
            texts += own
            first += [row] * len(own)
            groups += [keys[key]] * len(own)
        of_rows[row] = keys[key]
    return ContentFree(texts, np.asarray(first), np.asarray(groups), of_rows)


def probabilities(scores: np.ndarray) -> np.ndarray:
    """The softmax over each row's candidates, float32 (B, C); 0 where a row has no such one."""
    scores = scores.astype("float64")
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True), "float32")


def _texts(calibrate: Any, task: str | None, model_inputs: ModelInputs) -> list[str]:
    """The texts without content of one task."""
    if calibrate is True:
        assert model_inputs.preprocessor is not None
        tokens = tokenized(Text(list(CONTENT_FREE), False), model_inputs, None)
        mask = tokens[str(model_inputs.splice.token_inputs[-1].mask_name)]
        # Nothing is no token where texts begin without one.
        texts = [t for t, m in zip(CONTENT_FREE, mask, strict=True) if m.any()]
        if not texts:
            raise ValueError(
                "`calibrate` should be a list of texts without content where none of "
                f"{list(CONTENT_FREE)} has a token. Received: calibrate=True"
            )
        return texts
    found: Any = calibrate.get(task) if isinstance(calibrate, Mapping) else calibrate
    is_list = isinstance(found, (list, tuple)) and len(found) > 0
    if not is_list or not all(isinstance(text, str) for text in found):
        of = "" if task is None else f" for task {task!r}"
        raise ValueError(
            "`calibrate` should be True, False, a list of texts without content, or a dict of task "
            f"name to such a list. Received: calibrate={received(calibrate)}{of}"
        )
    return [check_utf8("calibrate", text) for text in found]


def answers(candidates: Candidates, scores: np.ndarray, with_probabilities: bool) -> Any:
    """Each row's likeliest candidate; if asked, the probabilities (B, C) too."""
    best = candidates.best(scores)
    return (best, probabilities(scores)) if with_probabilities else best
