"""Integer labels of tasks with label words: what `fit` makes of them, and what accuracy is."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.decoding.language_models import (
    VOCABULARY,
    causal_preprocessor,
    make,
    seq2seq_preprocessor,
)
from tests.decoding.test_label_words import model_with
from tests.fitting.test_plain_words import assert_says
from tests.marks import only_eager, only_torch, slow_on_jax

END, SPACE = VOCABULARY["<|endoftext|>"], VOCABULARY["Ġ"]
# One token per word, and several.
SINGLE, SEVERAL = (
    {"a": ["b", "a"], "c": ["ab", "d", "c"]},
    {"a": ["b", " cd", "a"], "c": ["ab", "d"]},
)
TEXTS = ["abcd", "d", "ca", "b", "aab", "h"]
TASKS, LABELS = ["c", "a", "c", "a", "c", "a"], np.array([1, 1, 0, 0, 1, 0])


def accuracies(model, texts=TEXTS, tasks=TASKS, labels=LABELS):
    """What `predict_labels` gets right: all of it, and each task's."""
    words = model.config.label_words
    found = model.predict_labels({"prompts": texts}, task_ids=tasks)
    right = np.array([w == words[t][k] for w, t, k in zip(found, tasks, labels, strict=True)])
    of = np.array(tasks)
    return {"accuracy": right.mean()} | {f"{t}_accuracy": right[of == t].mean() for t in set(tasks)}


def test_labels_are_the_words_tokens():
    model = model_with(SEVERAL, preprocessor=causal_preprocessor(16))
    data = {"prompts": ["ab", "d", "ca"], "task_ids": ["a", "c", "a"]}
    x, y, weight = model.prepared(data, [1, 1, 0], [2.0, 1.0, 0.5])
    rows = [[END, 9, SPACE, 2, 3], [END, 3, 3], [END, 2, 0, 1]]
    padded = [np.array(r + [0] * (17 - len(r))) for r in rows]
    np.testing.assert_array_equal(y, [r[1:] for r in padded])
    np.testing.assert_array_equal(x["padding_mask"].sum(axis=1), [4, 2, 3])
    np.testing.assert_array_equal(
        weight[:, :5], [[0, 2, 2, 2, 0], [0, 1, 0, 0, 0], [0, 0, 0.5, 0, 0]]
    )
    named = model.prepared({"text": data["prompts"], "task_ids": data["task_ids"]}, [1, 1, 0])
    np.testing.assert_array_equal(named[0]["token_ids"], x["token_ids"])
    np.testing.assert_array_equal(named[1], y)
    column = {"text": data["prompts"], "task_ids": data["task_ids"]}, np.array([[1], [1], [0]])
    np.testing.assert_array_equal(model.prepared(*column)[1], y)


@slow_on_jax
def test_loss_and_accuracy_are_of_labels():
    model = model_with(SINGLE)
    model.compile(jit_compile=keras.backend.backend() == "jax")
    data = {"prompts": TEXTS, "task_ids": TASKS}
    before = model.evaluate(data, LABELS, batch_size=4, verbose=0, return_dict=True)
    for name, value in accuracies(model).items():
        np.testing.assert_allclose(before[name], value, atol=1e-6, err_msg=name)
    # The loss is the mean over all words' tokens.
    words = [[SINGLE[t][k]] for t, k in zip(TASKS, LABELS, strict=True)]
    own = model.score(data, words)[:, 0]
    np.testing.assert_allclose(before["loss"], -own.mean(), rtol=1e-5)


@only_eager
def test_training_and_its_validation():
    model = model_with(SINGLE)
    model.compile(keras.optimizers.Adam(0.05))
    data = {"prompts": TEXTS, "task_ids": TASKS}
    history = model.fit(data, LABELS, epochs=12, verbose=0, validation_data=(data, LABELS)).history
    assert history["val_loss"][-1] < history["val_loss"][0]
    after = accuracies(model)
    for name, value in after.items():
        np.testing.assert_allclose(history[f"val_{name}"][-1], value, atol=1e-6, err_msg=name)


@only_torch
@pytest.mark.parametrize("words", [SEVERAL, {"a": ["b", " cd"], "c": [" ef", "d"]}])
def test_accuracy_of_words_of_several_tokens(words):
    model = model_with(words)
    rng = np.random.default_rng(1)
    texts = ["".join(rng.choice([*"abcdefgh"], 4)) for _ in range(60)]
    tasks, labels = ["a", "c"] * 30, rng.integers(0, 2, 60)
    expected = accuracies(model, texts, tasks, labels)
    data = {"prompts": texts, "task_ids": tasks}
    found = model.evaluate(data, labels, batch_size=60, verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
    assert model.evaluate(data, labels, batch_size=60, verbose=0)[1] == found["accuracy"]
    # By the first token alone it is another one, as in the logs of training.
    loader = ((dict(data), labels) for _ in range(1))
    by_first = model.evaluate(loader, verbose=0, return_dict=True)
    assert by_first["accuracy"] != found["accuracy"]
    np.testing.assert_allclose(by_first["loss"], found["loss"], rtol=1e-5)
    # Of the first steps' rows the logs stay what these gave.
    cut = [{n: v[:30] for n, v in data.items()}, labels[:30]]
    first = model.evaluate(data, labels, batch_size=30, steps=1, verbose=0, return_dict=True)
    loader = (tuple(cut) for _ in range(1))
    assert first == pytest.approx(model.evaluate(loader, verbose=0, return_dict=True), nan_ok=True)
    # Free text beside them keeps its tokens' accuracy.
    free = {"prompts": ["d", "e"], "responses": ["ab", "h"], "task_ids": ["b", "b"]}
    alone = model.evaluate(free, verbose=0, return_dict=True)
    mixed = {n: [*data[n], *free[n]] for n in data} | {"responses": [None] * 60 + free["responses"]}
    both = model.evaluate(mixed, [*labels, -100, -100], verbose=0, return_dict=True)
    np.testing.assert_allclose(both["b_accuracy"], alone["b_accuracy"], rtol=1e-6)
    for name in ("a_accuracy", "c_accuracy"):
        np.testing.assert_allclose(both[name], expected[name], atol=1e-6)
    total = (60 * expected["accuracy"] + 4 * alone["accuracy"]) / 64
    np.testing.assert_allclose(both["accuracy"], total, atol=1e-6)


@only_torch
@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_accuracy_where_prompts_are_cut(kind):
    """Training, evaluation and answers cut a prompt alike: by its task's longest word's room."""
    preprocessor = causal_preprocessor(6) if kind == "gpt2" else seq2seq_preprocessor(6, 12)
    model = make(kind, preprocessor, truncation_side="left")
    model.set_config(dataclasses.replace(model.config, label_words=SEVERAL))
    data = {"prompts": [2 * text for text in TEXTS], "task_ids": TASKS}
    expected = accuracies(model, data["prompts"])
    found = model.evaluate(data, LABELS, verbose=0, return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
    words = [[SEVERAL[t][k]] for t, k in zip(TASKS, LABELS, strict=True)]
    x, y, weight = model.prepared(data, LABELS)
    logits = np.asarray(model.predict(x, verbose=0)).astype("float64")
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    log_p = np.take_along_axis(np.log(p / p.sum(axis=-1, keepdims=True)), y[..., None], -1)[..., 0]
    of_labels = model.score(data)[np.arange(6), LABELS]
    np.testing.assert_allclose(of_labels, (log_p * weight).sum(axis=1), rtol=1e-5)
    whole = [len(w[0].replace("ab", "x")) for w in words]
    np.testing.assert_array_equal(weight.sum(axis=1), whole)


@only_torch
def test_labels_and_responses_in_one_fit():
    model = model_with(SINGLE)
    datasets = {
        "a": ({"prompts": ["ab", "d", "c"]}, [0, 1, 1]),
        "b": ({"prompts": ["cd", "h"], "responses": ["gh", ""]}, None),
        "c": ({"prompts": ["f"]}, np.array([2]), [0.5]),
    }
    x, y, weight = keras_mpt.stack_tasks(datasets)
    assert y.tolist() == [0, 1, 1, -100, -100, 2]
    assert x["responses"].tolist() == ["", "", "", "gh", "", ""]
    tokens, targets, weights = model.prepared(x, y, weight)
    counted = [row[w > 0].tolist() for row, w in zip(targets, weights, strict=True)]
    assert counted == [[1], [0], [0], [6, 7, END], [END], [2]]
    np.testing.assert_array_equal(weights.max(axis=1), [1, 1, 1, 1, 1, 0.5])
    assert tokens["task_ids"].tolist() == [0, 0, 0, 1, 1, 2]
    # What is missing in a table is missing here too, and text beside labels is a prompt.
    given = np.array([None, None, float("nan"), "gh", "", None], object)
    again = model.prepared({**x, "responses": given}, y, weight)
    np.testing.assert_array_equal(again[1], targets)
    found = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    one = model.evaluate({n: v[3:5] for n, v in x.items()}, y[3:5], verbose=0, return_dict=True)
    # A task of free text has the accuracy of tokens.
    np.testing.assert_allclose(found["b_accuracy"], one["accuracy"], rtol=1e-6)
    mix = keras_mpt.TaskMix(datasets, batch_size=6)
    history = model.fit(mix, epochs=2, verbose=0).history
    assert {"a_accuracy", "b_loss", "c_accuracy"} <= set(history)
    texts, none = keras_mpt.few_shot(datasets["b"][0], None, shots=1)
    assert (len(texts["prompts"]), len(texts["responses"]), none) == (1, 1, None)


REFUSED = {
    "out of range": (
        [0, 3],
        "`y` should hold labels in [0, 3), the classes of task 'c'. Received: label 3 in row 1, "
        "and 1 wrong labels in all",
    ),
    "a fraction": (
        [0.5, 0],
        "`y` should hold labels in [0, 2), the classes of task 'a'. Received: label 0.5 in row 0, "
        "and 1 wrong labels in all",
    ),
    "strings": (
        ["b", "a"],
        "`y` should hold the classes' numbers, from 0 on. Received: y of dtype <U1, such as ['b']",
    ),
    "too few": ([0], "`y` should have one label per row: 2 of them. Received: y of shape (1,)"),
    "none": (
        [0, -100],
        "`y` should hold a label, not -100, in rows without a response. Received: -100 in row 1",
    ),
}


@only_torch
@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_are_refused(case):
    y, says = REFUSED[case]
    model = model_with(SINGLE)
    assert_says(says, model.fit, {"prompts": ["a", "b"], "task_ids": ["a", "c"]}, y)


@only_torch
def test_rows_that_are_refused():
    model = model_with(SINGLE)
    assert_says(
        "`label_words` in the config should be of each task whose labels are asked for, so also of "
        "task 'b'. Received: label_words of tasks ['a', 'c']",
        model.fit, {"text": ["a", "b"], "task_ids": ["a", "b"]}, [0, 0],
    )  # fmt: skip
    assert_says(
        "`y` should be -100 in rows with a response of their own. Received: label 0 in row 1 with "
        "'c'",
        model.fit, {"prompts": ["a", "b"], "responses": ["", "c"], "task_ids": "a"}, [1, 0],
    )  # fmt: skip
    assert_says(
        "`label_words` in the config should be of each task whose labels are asked for, so also of "
        "task 'a'. Received: label_words of tasks []",
        make("gpt2", causal_preprocessor()).fit, {"text": ["a"], "task_ids": [0]}, [0],
    )  # fmt: skip


@only_torch
def test_teachers_and_their_student(tmp_path):
    """Each teacher learns its task's words or responses, and the student both."""
    datasets = {
        "a": ({"prompts": ["ab", "d", "c", "h"]}, np.array([0, 1, 2, 0])),
        "b": ({"prompts": ["cd", "h"], "responses": ["gh", ""]}, None),
    }
    words = {"a": SEVERAL["a"]}
    backbone, preprocessor = tiny.backbone("gpt2"), causal_preprocessor(16)
    config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    keras_mpt.train_teachers(
        backbone, datasets, tmp_path, config, label_words=words, preprocessor=preprocessor,
        epochs=1, verbose=0,
    )  # fmt: skip
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, num_tasks=2, task_names=[*datasets],
        label_words=words,
    )  # fmt: skip
    student = keras_mpt.prompt_tune(backbone, config, preprocessor=preprocessor)
    distillation = keras_mpt.Distillation(student, tmp_path)
    data = keras_mpt.stack_tasks(datasets)
    mix = keras_mpt.TaskMix(datasets, batch_size=4)
    history = distillation.fit(mix, verbose=0, validation_data=data).history
    assert {"a_logits_kl", "b_loss", "val_b_accuracy"} <= set(history)
    right = accuracies(student, datasets["a"][0]["prompts"], ["a"] * 4, datasets["a"][1])
    np.testing.assert_allclose(history["val_a_accuracy"][0], right["a_accuracy"], atol=1e-6)
