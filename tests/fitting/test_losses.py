"""Losses and metrics of logits, over each row's own task's columns, against NumPy in float64."""

import functools

import keras
import keras_hub
import numpy as np
import pytest
from keras import losses, metrics

import keras_mpt
from tests import tiny
from tests.fitting.kinds import (
    LABELS,
    NAMES,
    TASK_IDS,
    evaluate,
    log_softmax,
    make,
    of_tokens,
    own_logits,
)
from tests.marks import only_eager

# What is given for sparse cross-entropy on logits.
NAMED = {
    "a name": "sparse_categorical_crossentropy",
    "a class's name": "SparseCategoricalCrossentropy",
    "by the shapes": "crossentropy",
    "a function": losses.sparse_categorical_crossentropy,
    "a class": losses.SparseCategoricalCrossentropy,
    "a function with arguments": functools.partial(
        losses.sparse_categorical_crossentropy, ignore_class=-7
    ),
    "an object": losses.SparseCategoricalCrossentropy(from_logits=True),
}


@only_eager
@pytest.mark.parametrize("loss", NAMED)
def test_a_name_means_the_loss_of_logits(loss):
    model, x, logits = make(3, 2)
    model.compile(
        "adam", NAMED[loss], metrics=["sparse_categorical_crossentropy"], run_eagerly=True
    )
    own = own_logits(logits, [3, 2])
    expected = [-log_softmax(row)[label] for row, label in zip(own, LABELS, strict=True)]
    found = evaluate(model, x, LABELS)
    for name in ("loss", "sparse_categorical_crossentropy"):
        np.testing.assert_allclose(found[name], np.mean(expected), rtol=1e-5)
    nli = np.array(expected)[TASK_IDS == 0].mean()
    np.testing.assert_allclose(found["nli_loss"], nli, rtol=1e-5)


@only_eager
def test_a_name_trains_and_is_kept_as_a_name(tmp_path):
    model, x, _ = make(3, 2)
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["acc"])
    weights = model.get_weights()
    history = model.fit(x, LABELS, epochs=20, verbose=0).history["loss"]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    trained = evaluate(model, x, LABELS)["loss"]
    model.set_weights(weights)
    assert trained < 0.8 * history[0]
    assert loaded.compile_arguments()["loss"] == "sparse_categorical_crossentropy"
    np.testing.assert_allclose(evaluate(loaded, x, LABELS)["loss"], trained, rtol=1e-5)


@only_eager
@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (
            losses.SparseCategoricalCrossentropy(),
            "a SparseCategoricalCrossentropy with from_logits",
        ),
        (losses.CategoricalCrossentropy(), "a CategoricalCrossentropy with from_logits=False"),
        (losses.BinaryFocalCrossentropy(), "a BinaryFocalCrossentropy with from_logits=False"),
        (
            functools.partial(losses.binary_crossentropy, from_logits=False),
            "binary_crossentropy with from_logits=False",
        ),
        (
            {"class_name": "BinaryCrossentropy", "config": {"from_logits": False}},
            "a BinaryCrossentropy with from_logits=False",
        ),
        ("kl_divergence", "which reads them as probabilities"),
        ("KLD", "which reads them as probabilities"),
        (losses.Poisson(), "which reads them as probabilities"),
        (losses.Dice, "which reads them as probabilities"),
        ({"nli": losses.SparseCategoricalCrossentropy()}, "with from_logits=False"),
        ({"nlu": "mse"}, r"dict by the names of tasks, \['nli', 'score'\]"),
        ({"nli": None}, r"one for each task. Received: none for \['nli'\]"),
        (["mse", "mse"], "should be one for the model's one output, or a dict by task"),
        (
            {"nli": losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")},
            "one `reduction` for all tasks",
        ),
        ("no_such_loss", "Could not interpret loss identifier"),
    ],
)
def test_a_loss_that_would_be_wrong_is_refused_and_nothing_changes(loss, words):
    model, _, _ = make(3, 2)
    model.compile()
    before = model.loss
    with pytest.raises(ValueError, match=words):
        model.compile("adam", loss)
    assert model.loss is before


@only_eager
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metrics": [metrics.SparseCategoricalCrossentropy()]}, "with from_logits=False"),
        ({"weighted_metrics": [metrics.AUC()]}, "a AUC with from_logits=False"),
        ({"metrics": [keras_hub.metrics.Perplexity()]}, "a Perplexity with from_logits=False"),
        ({"metrics": ["kl_divergence"]}, "which reads them as probabilities"),
        ({"metrics": [metrics.F1Score()]}, "should be a dict of task name to list of metrics"),
        ({"metrics": {"nlu": ["acc"]}}, r"dict by the names of tasks, \['nli', 'score'\]"),
        (
            {"loss": "bce", "metrics": [metrics.BinaryAccuracy()]},
            "`threshold=0.0`: the model gives logits",
        ),
        (
            {"loss": "bce", "metrics": {"nli": [metrics.Precision()]}},
            "`thresholds=0.0`: the model gives logits",
        ),
        (
            {"loss": {"score": "bce"}, "metrics": ["accuracy"]},
            "as the tasks' losses take different targets",
        ),
    ],
)
def test_a_metric_that_would_be_wrong_is_refused(given, words):
    model, _, _ = make(3, 2)
    with pytest.raises(ValueError, match=words):
        model.compile(**{"loss": "auto", **given})


def test_losses_of_all_columns_take_each_row_s_own():
    """With classes that a task has not, whose logits are -1e9."""
    model, x, logits = make(3, 2)
    own = own_logits(logits, [3, 2])
    one_hot = [np.eye(len(row))[label] for row, label in zip(own, LABELS, strict=True)]
    y = np.eye(3)[LABELS]
    smoothed = [0.9 * row + 0.1 / len(row) for row in one_hot]
    cases = {
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1): lambda z, k: (
            -(smoothed[k] * log_softmax(z)).sum()
        ),
        "mse": lambda z, k: ((z - one_hot[k]) ** 2).mean(),
        "bce": lambda z, k: (np.logaddexp(0, z) - z * one_hot[k]).mean(),
    }
    for loss, of_row in cases.items():
        model.compile("adam", loss, metrics=["mae"], run_eagerly=True)
        expected = np.array([of_row(z, k) for k, z in enumerate(own)])
        errors = np.array([np.abs(z - one_hot[k]).mean() for k, z in enumerate(own)])
        found = evaluate(model, x, y)
        np.testing.assert_allclose(found["loss"], expected.mean(), rtol=1e-5)
        np.testing.assert_allclose(found["mae"], errors.mean(), rtol=1e-5)
        for k, name in enumerate(NAMES):
            np.testing.assert_allclose(
                found[f"{name}_loss"], expected[k == TASK_IDS].mean(), rtol=1e-5
            )
            np.testing.assert_allclose(
                found[f"{name}_mae"], errors[k == TASK_IDS].mean(), rtol=1e-5
            )


@only_eager
@pytest.mark.parametrize(
    ("loss", "y", "words"),
    [
        ("mse", LABELS, r"number per output of rows under this loss: shape \(6, 3\)"),
        ("categorical_crossentropy", LABELS, r"shape \(6, 3\). Received: y of dtype int64"),
        (
            "categorical_crossentropy",
            np.eye(3)[[0, 2, 2, 1, 0, 2]],
            "probabilities for the 2 classes of task 'score', and 0 for others. Received: 1.0 for "
            "class 2 in row 1",
        ),
        ("bce", np.full((6, 3), 2.0), r"numbers in \[0, 1\] for the 3 classes of task 'nli'"),
        ("mse", np.full((6, 3), np.nan), "finite numbers for the 3 classes of task 'nli'"),
        ("crossentropy", np.array([0, 2, 2, 1, 0, 2]), r"labels in \[0, 2\)"),
        ("sparse_categorical_crossentropy", np.eye(3)[LABELS], "one label per row: 6 of them"),
    ],
)
def test_targets_that_a_loss_cannot_take_are_refused(loss, y, words):
    model, x, _ = make(3, 2)
    model.compile("adam", loss)
    before = model.get_weights()
    with pytest.raises(ValueError, match=words):
        model.fit(x, y, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@only_eager
def test_language_models_and_spans_take_what_they_have_targets_for():
    model, x, _ = of_tokens("CAUSAL_LM")
    with pytest.raises(ValueError, match="`loss` should take classes or distributions or labels"):
        model.compile("adam", "mse")
    model.compile("adam", {"nli": "sparse_categorical_crossentropy"})
    assert np.isfinite(evaluate(model, x, x["token_ids"] * 0)["score_loss"])
    model, _, _ = of_tokens("QUESTION_ANS")
    with pytest.raises(ValueError, match="`loss` should take classes or labels"):
        model.compile("adam", "mse")


@only_eager
def test_a_backbone_s_outputs_are_no_logits():
    """Nothing is known of them, so names mean what they mean in Keras."""
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=2)
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config)
    model.compile("adam", losses.KLDivergence(), metrics=["kl_divergence"])
    assert isinstance(model.loss, losses.KLDivergence)
