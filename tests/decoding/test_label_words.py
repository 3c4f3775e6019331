"""Labels that are words: each row's own task's, in one batch, against whole passes in float64."""

import dataclasses
import re

import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.decoding.language_models import make
from tests.decoding.test_score import VOCABULARY, by_predict, causal_preprocessor
from tests.marks import only_torch, slow_on_jax

WORDS = {"a": ["b", " cd", "a"], "c": ["ab", "d"]}
# The longest first, and the two tasks in turns.
TEXTS, TASKS = ["abcd", "d", "ca"], ["c", "a", "c"]


def model_with(words=WORDS, kind="gpt2", preprocessor=None):
    """A language model of tasks "a", "b" and "c", of which "b" has no words."""
    model = make(kind, preprocessor or causal_preprocessor())
    model.set_config(dataclasses.replace(model.config, label_words=words))
    return model


def tokens(text, start="<|endoftext|>"):
    """The ids of a text, of which "ab" is one, behind the start token."""
    letters = re.findall("ab|.", text.replace(" ", "Ġ"))
    return ([VOCABULARY[start]] if start else []) + [VOCABULARY[x] for x in letters]


def whole_passes(model, texts=TEXTS, tasks=TASKS, words=WORDS):
    """The scores (B, C), −inf where a row's task has no such word."""
    found = np.full((len(texts), max(len(words[task]) for task in tasks)), -np.inf)
    for row, (text, task) in enumerate(zip(texts, tasks, strict=True)):
        ids = np.array([tokens(text)])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
        candidates = [tokens(word, start=None) for word in words[task]]
        found[row, : len(candidates)] = by_predict(model, x, candidates, ["abc".index(task)])[0]
    return found


def softmax(scores):
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


@slow_on_jax
def test_each_row_has_its_own_task_s_words():
    model = model_with()
    expected = whole_passes(model)
    assert np.isneginf(expected).sum() == 2
    x = {"text": TEXTS, "task_ids": TASKS}
    found = model.score(x)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    best = [WORDS[task][k] for task, k in zip(TASKS, expected.argmax(axis=1), strict=True)]
    labels, p = model.predict_labels(TEXTS, task_ids=TASKS, return_probabilities=True)
    assert labels == best
    assert p.dtype == "float32"
    np.testing.assert_allclose(p, softmax(expected), atol=1e-5)
    np.testing.assert_array_equal(p == 0, np.isneginf(expected))
    # `predict` on text is these scores; on tokens it is logits.
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-5)
    ids = np.array([tokens("d")])
    of_tokens = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": [0]}
    assert model.predict(of_tokens, verbose=0).shape == (1, 2, tiny.VOCABULARY)
    np.testing.assert_allclose(model.score(of_tokens), expected[1:2], rtol=1e-5)


@only_torch
def test_other_ways_to_the_same_scores():
    model = model_with()
    expected = whole_passes(model)
    for arguments in ({"batch_size": 1}, {"batch_size": 2}, {"use_cache": False}):
        found = model.score(TEXTS, task_ids=TASKS, **arguments)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    sizes = [[len(tokens(word, start=None)) for word in WORDS[task]] for task in TASKS]
    sizes = np.array([[*own, 1][:3] for own in sizes])
    mean = model.score(TEXTS, task_ids=TASKS, normalize="mean")
    np.testing.assert_allclose(mean, expected / sizes, rtol=1e-5)
    prompts = {"prompts": TEXTS, "task_ids": TASKS}
    np.testing.assert_allclose(model.score(prompts), expected, rtol=1e-5)
    np.testing.assert_allclose(model.predict(prompts), expected, rtol=1e-5)
    # Candidates that are given are those of all rows, words or not.
    np.testing.assert_allclose(
        model.score(TEXTS, ["ab", "d"], task_ids=TASKS)[[0, 2]], expected[[0, 2], :2], rtol=1e-5
    )
    # Rows of tasks with few words alone are not as wide.
    assert model.score(TEXTS[::2], task_ids=TASKS[::2]).shape == (2, 2)
    folded = model.fold("c")
    np.testing.assert_allclose(folded.score(TEXTS[::2]), expected[[0, 2], :2], rtol=1e-5)
    np.testing.assert_allclose(folded.predict(["ca"]), expected[2:, :2], rtol=1e-5)
    assert folded.predict_labels("ca") == folded.predict_labels(["ca"])
    # A task without words has logits, and so has a batch with one.
    for x in ({"text": TEXTS, "task_ids": ["a", "b", "a"]}, {"text": TEXTS, "task_ids": "b"}):
        assert model.predict(x, verbose=0).shape == (3, 8, tiny.VOCABULARY)


@only_torch
@pytest.mark.parametrize("normalize", ["sum", "mean"])
def test_calibrated_by_texts_without_content(normalize):
    model = model_with()
    sizes = np.array([[1, 1, 1], [1, 3, 1], [1, 1, 1]] if normalize == "mean" else [[1, 1, 1]])
    expected = whole_passes(model) / sizes
    free = {"a": ["h", "gg"], "c": ["e"]}
    for row, task in enumerate(TASKS):
        own = whole_passes(model, free[task], [task] * len(free[task]))
        own = own / sizes[row][: own.shape[1]] if normalize == "mean" else own
        prior = softmax(own).mean(axis=0)
        expected[row, : len(prior)] -= np.log(prior)
    given = {"task_ids": TASKS, "normalize": normalize, "return_probabilities": True}
    labels, p = model.predict_labels(TEXTS, calibrate=free, **given)
    np.testing.assert_allclose(p, softmax(expected), atol=1e-5)
    assert labels == [WORDS[t][k] for t, k in zip(TASKS, expected.argmax(axis=1), strict=True)]
    without = model.predict_labels(TEXTS, **given)[1]
    assert np.abs(p - without).max() > 0.01


@only_torch
def test_calibrated_by_default():
    letters = [*"abcdefghNAMSK/[]", "Ġ", "ab", "<|endoftext|>"]
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["a b"])
    read = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=12)
    model = model_with(preprocessor=read)
    for words in (None, ["ab", "d"], [["ab", "d"], ["d", "c"], ["ab", "d"]]):
        given = {"task_ids": TASKS, "return_probabilities": True}
        own = model.predict_labels(TEXTS, words, calibrate=True, **given)
        texts = ["", "N/A", "[MASK]"]
        same = model.predict_labels(TEXTS, words, calibrate=texts, **given)
        np.testing.assert_array_equal(own[1], same[1])
        assert own[0] == same[0]
    # Of a row that is itself without content every word is as likely.
    p = model.predict_labels("N/A", task_ids="a", calibrate=["N/A"], return_probabilities=True)[1]
    np.testing.assert_allclose(p, 1 / 3, atol=1e-6)
    # Where there is no start token, as in SmolLM, nothing is no text.
    read.packer.start_value = None
    given = {"task_ids": "c", "return_probabilities": True}
    own = model.predict_labels(TEXTS, calibrate=True, **given)[1]
    same = model.predict_labels(TEXTS, calibrate=["N/A", "[MASK]"], **given)[1]
    np.testing.assert_array_equal(own, same)


@only_torch
def test_candidates_that_padding_makes_alike_are_calibrated_apart():
    """Shorter candidates are padded with the token 0, which is "a" here."""
    model = make("gpt2", causal_preprocessor())
    lists = [["b", "c"], ["ba", "c"]]
    given = {"calibrate": ["f"], "return_probabilities": True}
    both = model.predict_labels(["de", "de"], lists, task_ids=["a", "a"], **given)[1]
    for row, own in enumerate(lists):
        alone = model.predict_labels(["de"], [own], task_ids=["a"], **given)[1]
        np.testing.assert_allclose(both[row : row + 1], alone, rtol=1e-5)


@only_torch
def test_an_encoder_decoder_answers_in_words():
    tokenizer = keras_hub.models.BartTokenizer(vocabulary=VOCABULARY, merges=["a b"])
    read = keras_hub.models.BartSeq2SeqLMPreprocessor(
        tokenizer, encoder_sequence_length=8, decoder_sequence_length=8
    )
    model = model_with(kind="bart", preprocessor=read)
    found = model.score(TEXTS, task_ids=TASKS)
    for row, (text, task) in enumerate(zip(TEXTS, TASKS, strict=True)):
        own = model.score(text, WORDS[task], task_ids=task)[0]
        np.testing.assert_allclose(found[row, : len(own)], own, rtol=1e-5)
    texts = {"encoder_text": TEXTS, "decoder_text": ["e"] * 3, "task_ids": TASKS}
    np.testing.assert_allclose(model.predict(texts), model.score(texts), rtol=1e-6)
    free = {"a": ["h"], "c": ["h"]}
    labels, p = model.predict_labels(
        TEXTS, task_ids=TASKS, calibrate=free, return_probabilities=True
    )
    wanted = found[1:2] - model.score(["h"], task_ids="a")
    np.testing.assert_allclose(p[1:2], softmax(wanted), atol=1e-5)
    with pytest.raises(ValueError, match="`calibrate` should be False where there is decoder text"):
        model.predict_labels(texts, calibrate=True)


WITHOUT_CONTENT = (
    "`calibrate` should be True, False, a list of texts without content, or a dict of task name to "
    "such a list. Received: calibrate="
)


@only_torch
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.predict_labels(TEXTS, task_ids=["a", "b", "c"]),
            "`label_words` in the config should be of each task whose labels are asked for, so "
            "also of task 'b'. Received: label_words of tasks ['a', 'c']",
        ),
        (
            lambda m: m.fold("b").score(TEXTS),
            "`label_words` should be in the config for labels to be words: one per class. "
            "Received: label_words=None",
        ),
        (
            lambda m: m.predict_labels(TEXTS, task_ids="a", calibrate=[]),
            WITHOUT_CONTENT + "[] for task 'a'",
        ),
        (
            lambda m: m.predict_labels(TEXTS, task_ids=TASKS, calibrate={"a": ["h"]}),
            WITHOUT_CONTENT + "{'a': ['h']} for task 'c'",
        ),
        (
            lambda m: m.fold("a").predict_labels(TEXTS, calibrate="h"),
            WITHOUT_CONTENT + "'h'",
        ),
        (
            lambda m: m.predict_labels(TEXTS, task_ids=TASKS, calibrate=None),
            WITHOUT_CONTENT + "None",
        ),
        (
            lambda m: m.score(TEXTS, task_ids="a", batch_size=0),
            "`batch_size` should be a positive integer. Received: batch_size=0",
        ),
        (
            lambda m: m.predict_labels(TEXTS, task_ids="a", return_probabilities="yes"),
            "`return_probabilities` should be True or False. Received: return_probabilities='yes'",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call(model_with())


@only_torch
def test_without_a_preprocessor():
    model = make("gpt2")
    ids = np.array([[3, 4]])
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": [0]}
    with pytest.raises(ValueError, match="`calibrate` should be False where there is no preproces"):
        model.predict_labels(x, [[3], [4]], calibrate=True)
    model.set_config(dataclasses.replace(model.config, label_words=WORDS))
    with pytest.raises(
        ValueError, match="`preprocessor` should be given to a model with `label_wo"
    ):
        model.predict_labels(x)
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=2, label_words=["a", "b"])
    alone = keras_mpt.models.PromptTunedCausalLM(tiny.backbone("gpt2"), config)
    assert alone.predict({k: v for k, v in x.items() if k != "task_ids"}).shape == (1, 2, 50)
