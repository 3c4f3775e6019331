"""Accuracy of tasks with label words in `evaluate`: what `predict_labels` gets right."""

import keras
import numpy as np
import pytest

from tests.decoding.language_models import VOCABULARY, causal_preprocessor
from tests.decoding.test_label_words import model_with
from tests.fitting.test_word_labels import SEVERAL, SINGLE, accuracies
from tests.marks import only_torch

pytestmark = only_torch
# As many as it takes for some words to be chosen that do not begin with the likeliest token.
LETTERS = np.random.default_rng(1).choice([*"abcdefgh"], (40, 4))
TEXTS, TASKS = ["".join(own) for own in LETTERS], ["a", "c"] * 20
DATA = {"prompts": TEXTS, "task_ids": TASKS}
START = VOCABULARY["<|endoftext|>"]


def answers(model, texts=TEXTS, tasks=TASKS):
    """The class of each row's answer."""
    found = model.predict_labels({"prompts": texts}, task_ids=tasks)
    words = model.config.label_words
    return np.array([words[t].index(w) for w, t in zip(found, tasks, strict=True)])


def nearly_right(model):
    """What the model answers, but for three rows."""
    labels = answers(model)
    labels[:3] = 1 - np.minimum(labels[:3], 1)
    return labels


def evaluated(model, *data, **more):
    """The logs of one batch."""
    return model.evaluate(*data, batch_size=64, verbose=0, return_dict=True, **more)


def test_rows_of_no_weight_change_nothing():
    model = model_with(SEVERAL)
    weight = np.tile([1.0, 0.0, 2.0, 1.0, 0.0, 1.0, 3.0, 1.0], 5)
    labels = nearly_right(model)
    right = answers(model) == labels
    found = evaluated(model, DATA, labels, sample_weight=weight)
    assert found["accuracy"] == pytest.approx(np.average(right, weights=weight), abs=1e-6)
    for task in "ac":
        own = np.array(TASKS) == task
        expected = np.average(right[own], weights=weight[own])
        assert found[f"{task}_accuracy"] == pytest.approx(expected, abs=1e-6)
    # As though they were not there.
    kept = weight > 0
    data = {
        n: [v for v, own in zip(column, kept, strict=True) if own] for n, column in DATA.items()
    }
    alone = evaluated(model, data, labels[kept], sample_weight=weight[kept])
    assert alone == pytest.approx(found, abs=1e-6, nan_ok=True)
    history = model.fit(DATA, labels, validation_data=(DATA, labels, weight), verbose=0).history
    right = answers(model) == labels
    expected = np.average(right, weights=weight)
    assert history["val_accuracy"] == [pytest.approx(expected, abs=1e-6)]


@pytest.mark.parametrize("words", [SINGLE, SEVERAL])
@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"weighted_metrics": {"a": ["accuracy"], "c": ["acc"]}}, ["a_accuracy", "c_acc"]),
        ({"metrics": ["accuracy"], "weighted_metrics": None}, ["accuracy", "a_accuracy"]),
        ({"metrics": ["accuracy"]}, ["accuracy", "weighted_accuracy", "c_weighted_accuracy"]),
        (
            {"weighted_metrics": ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(3)]},
            ["accuracy", "a_accuracy", "c_accuracy"],
        ),
        ({"weighted_metrics": [keras.metrics.SparseCategoricalAccuracy("right")]}, ["right"]),
    ],
    ids=["by task", "unweighted", "both", "another beside it", "an object"],
)
def test_accuracy_is_the_same_however_it_is_asked_for(words, given, names):
    model = model_with(words)
    model.compile(**given)
    labels = nearly_right(model)
    expected = accuracies(model, TEXTS, TASKS, labels)
    found = model.evaluate(DATA, labels, verbose=0, return_dict=True)
    for name in names:
        task = name.split("_")[0] if name[:2] in ("a_", "c_") else None
        value = expected["accuracy" if task is None else f"{task}_accuracy"]
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_rows_that_leave_words_no_room_keep_the_next_tokens_accuracy():
    model = model_with({"a": ["b", " cd", "a"], "c": ["ab", "d"]})
    limit = model.backbone.max_sequence_length - model.config.num_virtual_tokens
    ids = np.tile([START, *[0, 1, 2, 3] * limit], (2, 1))[:, :limit]
    y, weight = np.zeros_like(ids), np.zeros(ids.shape, "float32")
    y[:, -1], weight[:, -1] = [VOCABULARY["b"], VOCABULARY["a"]], 1.0
    mask = np.ones_like(ids)
    # A task of words of one token has room, beside one that has none.
    x = {"token_ids": np.tile(ids, (2, 1)), "padding_mask": np.tile(mask, (2, 1))}
    x["task_ids"] = np.array([0, 0, 2, 2])
    y, weight = np.tile(y, (2, 1)), np.tile(weight, (2, 1))
    y[2:, -1] = VOCABULARY["ab"], VOCABULARY["d"]
    logits = model.predict(x, verbose=0)[:, -1]
    with pytest.warns(UserWarning, match=r"^Accuracy of tasks \['a'\] is that of next tokens, not"):
        found = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    first = [[VOCABULARY[letter] for letter in ("b", "Ġ", "a")]] * 2 + [[9, 3]] * 2
    right = [
        own[logits[row, own].argmax()] == y[row, -1] for row, own in enumerate(first)
    ]  # fmt: skip
    assert found["a_accuracy"] == pytest.approx(np.mean(right[:2]))
    assert found["c_accuracy"] == pytest.approx(np.mean(right[2:]))
    assert found["accuracy"] == pytest.approx(np.mean(right))
    with pytest.warns(UserWarning, match="leave one of their task's words no room"):
        model.fit(x, y, sample_weight=weight, validation_data=(x, y, weight), verbose=0)
    # Other tasks' longer words take none of a row's room.
    one = {name: value[2:, :-1] if value.ndim > 1 else value[2:] for name, value in x.items()}
    assert model.score(one).shape == (2, 2)


def test_rows_padded_on_the_left_keep_the_next_tokens_accuracy():
    model = model_with(SEVERAL)
    ids = np.array([[0, 0, START, 2], [0, START, 6, 5]])
    mask = np.array([[0, 0, 1, 1], [0, 1, 1, 1]])
    y = np.array([[0, 0, 0, 1], [0, 0, 0, 0]])
    weight = np.array([[0.0, 0, 0, 1]] * 2)
    x = {"token_ids": ids, "padding_mask": mask, "task_ids": [0, 0]}
    logits = model.predict(x, verbose=0)[:, -1]
    own = np.array([VOCABULARY[letter] for letter in ("b", "Ġ", "a")])
    expected = np.mean(own[logits[:, own].argmax(axis=1)] == y[:, -1])
    with pytest.warns(UserWarning, match="some rows are padded on the left"):
        found = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    assert found["a_accuracy"] == pytest.approx(expected)


def test_a_response_that_begins_as_a_word_counts_once_in_the_mean_of_all():
    model = model_with(SEVERAL, preprocessor=causal_preprocessor(12))
    texts, tasks = ["ab", "d", "c", "f"], ["c", "a", "a", "c"]
    # Task c's row is answered by "d", and then goes on.
    data = {"prompts": texts, "task_ids": tasks, "responses": [None, None, None, "dab"]}
    labels = np.array([1, 0, 1, -100])
    found = model.evaluate(data, labels, verbose=0, return_dict=True)
    own = {t: found[f"{t}_accuracy"] for t in "ac"}
    assert found["accuracy"] == pytest.approx(np.mean([own["a"]] * 2 + [own["c"]] * 2), abs=1e-6)


def test_all_right_is_one():
    model = model_with(SEVERAL)
    found = model.evaluate(DATA, answers(model), verbose=0, return_dict=True)
    assert found["accuracy"] == found["a_accuracy"] == 1.0
