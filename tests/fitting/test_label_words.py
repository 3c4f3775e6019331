"""Label words as tokens, and the words that no model could tell apart."""

import re

import keras_hub
import numpy as np
import pytest

import keras_mpt
from keras_mpt.fitting.label_words import label_words
from tests.decoding.test_score import VOCABULARY, causal_preprocessor
from tests.marks import only_torch

pytestmark = only_torch

WORDS = {"tone": [" ab", "c", "d"], "topic": ["ab", " a"]}


def config(words, **kwargs):
    """Three tasks, of which some have words."""
    given = {"num_tasks": 3, "task_names": ["tone", "none", "topic"], **kwargs}
    return keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=2, label_words=words, **given)


def tokens(*letters):
    return [VOCABULARY[letter] for letter in letters]


def test_tokens_of_each_task():
    found = label_words(config(WORDS), causal_preprocessor(), 50)
    assert found.words == [[" ab", "c", "d"], [], ["ab", " a"]]
    assert found.num_classes.tolist() == [3, 0, 2]
    assert found.sizes.tolist() == [[2, 1, 1], [0, 0, 0], [1, 2, 0]]
    assert found.token_ids.shape == (3, 3, 2) and found.token_ids.dtype == "int32"
    assert found.tokens(0, 0).tolist() == tokens("Ġ", "ab")
    assert found.tokens(0, 2).tolist() == tokens("d")
    assert found.tokens(2, 1).tolist() == tokens("Ġ", "a")
    assert found.tasks_of_rows(np.array([2, 0, 2]), 3).tolist() == [2, 0, 2]


def test_one_prompt_has_one_list():
    one = keras_mpt.PromptTuningConfig(num_virtual_tokens=2, label_words=["c", " ab"])
    found = label_words(one, causal_preprocessor(), 50)
    assert found.words == [["c", " ab"]] and found.task_names is None
    assert found.tokens(0, 1).tolist() == tokens("Ġ", "ab")
    assert found.tasks_of_rows(None, 2).tolist() == [0, 0]


def test_without_words():
    for given in (config(None), keras_mpt.PromptTuningConfig(num_virtual_tokens=2)):
        found = label_words(given, None, 50)
        assert not found.num_classes.any() and found.token_ids.shape[1:] == (0, 0)
        with pytest.raises(ValueError, match="`label_words`") as error:
            found.tasks_of_rows(np.array([0]), 1)
        no_tasks = type(given) is keras_mpt.PromptTuningConfig
        assert str(error.value) == (
            "`label_words` should be in the config for labels to be words: one per class. "
            "Received: label_words=None"
            if no_tasks
            else "`label_words` in the config should be of each task whose labels are asked for, "
            "so also of task 'tone'. Received: label_words of tasks []"
        )
    with pytest.raises(ValueError, match=r"also of task 'none'. .* tasks \['tone', 'topic'\]"):
        label_words(config(WORDS), causal_preprocessor(), 50).tasks_of_rows(np.array([0, 1]), 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [" a", "b", " cd"],
            "`label_words` of one task should differ in their first token, with which a model "
            "chooses among them: other words will do, or mostly the same ones behind a space. "
            f"Received: label_words of task 'tone' with ' a' and ' cd', which both begin with "
            f"token {VOCABULARY['Ġ']}",
        ),
        (
            ["a", "h"],
            "`label_words` should have token ids in [0, 7). Received: label_words with [7]",
        ),
    ],
)
def test_words_that_cannot_be_told_apart(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        label_words(config({"tone": words}), causal_preprocessor(), 7 if "h" in words else 50)


def test_a_word_without_tokens():
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good"]
    tokenizer = keras_hub.tokenizers.BertTokenizer(vocabulary, lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=6)
    with pytest.raises(
        ValueError,
        match="`label_words` should have at least one token each. Received: label_words of task "
        "'tone' with ' ', which has none",
    ):
        label_words(config({"tone": ["good", " "]}), preprocessor, 50)


def test_words_without_a_preprocessor():
    with pytest.raises(
        ValueError,
        match="`preprocessor` should be given to a model with `label_words`, whose tokens its "
        r"tokenizer knows. Received: preprocessor=None with label_words={'tone': \['a', 'b'\]}",
    ):
        label_words(config({"tone": ["a", "b"]}), None, 50)
