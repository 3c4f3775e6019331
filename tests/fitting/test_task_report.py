"""Each task's loss and metrics, against NumPy in float64 and against the task's rows alone."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.fitting.objective import Objective, Setting
from keras_mpt.fitting.task_report import MAX_REPORTED_TASKS, TaskReport
from tests import tiny
from tests.marks import only_eager

NAMES, TASK_IDS = ["tone", "topic"], np.array([0, 1, 1, 1, 0, 0, 1, 0])
LABELS = np.array([1, 2, 0, 0, 0, 1, 2, 1])
WEIGHTS = np.array([1.0, 2.0, 0.5, 3.0, 0.25, 1.5, 2.5, 4.0], "float32")


def make(num_classes, **kwargs):
    """A classifier with random weights, and its inputs: two batches of four rows."""
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=num_classes, **kwargs)
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    return model, {**tiny.inputs(model.backbone, rows=8), "task_ids": TASK_IDS}


@pytest.fixture(scope="module")
def made():
    """One for all tests, with two and three classes."""
    return make([2, 3])


def row_losses(y, logits):
    """Cross-entropy of each row."""
    return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)


def confidence(y, logits):
    """A metric of a user's own."""
    return ops.max(ops.softmax(logits), axis=-1)


def in_numpy(logits):
    """What is measured of each row, in float64."""
    logits = logits.astype("float64")
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    own = probabilities[np.arange(8), LABELS]
    return {
        "loss": -np.log(own),
        "accuracy": probabilities.argmax(axis=1) == LABELS,
        "weighted_accuracy": probabilities.argmax(axis=1) == LABELS,
        "top2": (probabilities > own[:, None]).sum(axis=1) < 2,
        "confidence": probabilities.max(axis=1),
    }


def sparse_loss(**kwargs):
    """The default loss, with another reduction."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **kwargs)


TOP2 = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")
# What is compiled, the names that it gives, and those of them that divide by the sum of weights.
COMPILED = {
    "metrics of all kinds": (
        {"metrics": ["accuracy", TOP2, confidence], "weighted_metrics": ["accuracy"]},
        ["loss", "accuracy", "top2", "confidence", "weighted_accuracy"],
        ["weighted_accuracy"],
    ),
    "no metrics": ({"metrics": None}, ["loss"], []),
    "loss over weights": (
        {"loss": sparse_loss(reduction="mean_with_sample_weight"), "metrics": ["accuracy"]},
        ["loss", "accuracy"],
        ["loss"],
    ),
    "loss function": ({"loss": row_losses, "metrics": []}, ["loss"], []),
}


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("weighted", [pytest.param(False, marks=only_eager), True])
def test_each_task_in_numpy_and_as_its_rows_alone(made, compiled, weighted):
    model, x = made
    kwargs, names, over_weights = COMPILED[compiled]
    model.compile(**kwargs)
    weights = WEIGHTS if weighted else None
    measured = in_numpy(model.predict(x, batch_size=4, verbose=0))
    options = {"batch_size": 4, "verbose": 0, "return_dict": True}
    found = model.evaluate(x, LABELS, sample_weight=weights, **options)
    assert set(found) == {*names, *(f"{task}_{name}" for task in NAMES for name in names)}
    for k, task in enumerate(NAMES):
        rows = k == TASK_IDS
        alone = model.evaluate(
            {key: v[rows] for key, v in x.items()},
            LABELS[rows],
            sample_weight=weights[rows] if weighted else None,
            **options,
        )
        for name in names:
            values, row_weights = measured[name][rows], WEIGHTS[rows].astype("float64")
            if weighted and name in over_weights:
                expected = (values * row_weights).sum() / row_weights.sum()
            elif weighted and name == "loss":  # Keras divides it by the number of rows.
                expected = (values * row_weights).mean()
            else:
                expected = values.mean()
            np.testing.assert_allclose(found[f"{task}_{name}"], expected, rtol=1e-5)
            np.testing.assert_allclose(found[f"{task}_{name}"], alone[name], rtol=1e-5)


def test_history_of_every_epoch_and_of_validation(made):
    """Without learning, all epochs are alike, so nothing of one is left in the next."""
    model, x = made
    model.compile(keras.optimizers.SGD(0.0), metrics=["accuracy"])
    expected = model.evaluate(x, LABELS, batch_size=4, verbose=0, return_dict=True)
    logs = model.fit(
        x, LABELS, batch_size=4, epochs=2, validation_data=(x, LABELS), verbose=0
    ).history
    assert set(logs) == {f"{prefix}{name}" for prefix in ("", "val_") for name in expected}
    for name, values in logs.items():
        value = expected[name.removeprefix("val_")]
        np.testing.assert_allclose(values, [value, value], rtol=1e-5, err_msg=name)
    listed = model.evaluate(x, LABELS, batch_size=4, verbose=0)
    order = ["loss", "accuracy", "tone_loss", "tone_accuracy", "topic_loss", "topic_accuracy"]
    np.testing.assert_allclose(listed, [expected[name] for name in order], rtol=1e-6)


def test_a_task_without_rows_is_nan_until_it_has_some(made):
    model, x = made
    model.compile(keras.optimizers.SGD(0.0))
    first = {k: v[:4] for k, v in x.items()} | {"task_ids": np.ones(4, int)}
    found = model.evaluate(first, LABELS[:4], verbose=0, return_dict=True)
    assert np.isnan([found["tone_loss"], found["tone_accuracy"]]).all()
    np.testing.assert_allclose(found["topic_loss"], found["loss"], rtol=1e-6)
    second = {k: v[4:] for k, v in x.items()} | {"task_ids": np.zeros(4, int)}
    both = {k: np.concatenate([first[k], second[k]]) for k in x}
    labels = np.concatenate([LABELS[:4], [0, 1, 1, 1]])
    found = model.evaluate(both, labels, batch_size=4, verbose=0, return_dict=True)
    assert np.isfinite(list(found.values())).all()


def test_one_number_for_the_whole_batch_is_no_task_s():
    model, x = make([3, 3])
    model.compile(
        keras.optimizers.SGD(0.0), loss=lambda y, p: ops.mean(row_losses(y, p)), metrics=[]
    )
    found = model.evaluate(x, LABELS, batch_size=8, verbose=0, return_dict=True)
    expected = in_numpy(model.predict(x, batch_size=8, verbose=0))["loss"].mean()
    np.testing.assert_allclose(found.pop("loss"), expected, rtol=1e-5)
    assert list(found) == ["tone_loss", "topic_loss"]
    assert np.isnan(list(found.values())).all()


def test_one_number_for_the_whole_batch_is_refused_where_classes_differ(made):
    model, x = made
    model.compile(loss=lambda y, p: ops.mean(row_losses(y, p)), metrics=[])
    with pytest.raises(ValueError, match="`loss` should give a value per row or token"):
        model.fit(x, LABELS, verbose=0)


def test_numbers_as_targets_are_no_labels():
    """With one output, targets are numbers under one loss and two classes under another."""
    model, x = make(1)
    scores = np.array([1, 5, 3, 2, 4, 0, 5, 2])
    model.compile(loss="mean_squared_error", metrics=["mae"])
    error = model.predict(x, batch_size=4, verbose=0)[:, 0].astype("float64") - scores
    found = model.evaluate(x, scores, batch_size=4, verbose=0, return_dict=True)
    for k, task in enumerate(NAMES):
        own = error[k == TASK_IDS]
        np.testing.assert_allclose(found[f"{task}_loss"], (own**2).mean(), rtol=1e-5)
        np.testing.assert_allclose(found[f"{task}_mae"], np.abs(own).mean(), rtol=1e-5)
    two = scores % 2
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"])
    logits = model.predict(x, batch_size=4, verbose=0)[:, 0].astype("float64")
    found = model.evaluate(x, two, batch_size=4, verbose=0, return_dict=True)
    for k, task in enumerate(NAMES):
        rows = k == TASK_IDS
        losses = np.logaddexp(0, logits) - two * logits
        np.testing.assert_allclose(found[f"{task}_loss"], losses[rows].mean(), rtol=1e-5)
        right = ((logits > 0) == two)[rows].mean()
        np.testing.assert_allclose(found[f"{task}_accuracy"], right, rtol=1e-6)


def test_a_label_that_the_loss_ignores_is_allowed(made):
    model, x = made
    model.compile(loss=sparse_loss(ignore_class=-1), metrics=[])
    found = model.evaluate(x, np.full(8, -1), batch_size=4, verbose=0, return_dict=True)
    assert found == {"loss": 0.0, "tone_loss": 0.0, "topic_loss": 0.0}


@pytest.mark.parametrize(("extra", "reported"), [(0, MAX_REPORTED_TASKS), (1, 0)])
def test_so_many_tasks_and_no_more(extra, reported):
    names = [f"task_{k}" for k in range(MAX_REPORTED_TASKS + extra)]
    metrics = TaskReport(names, Objective(Setting(names), "mse", metrics=["mae"])).metrics
    assert [m.name for m in metrics] == [
        f"{name}_{of}" for name in names[:reported] for of in ("loss", "mae")
    ]


def test_several_outputs_have_no_report():
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=2, num_tasks=2)
    model = keras_mpt.prompt_tune(tiny.backbone("bert", dropout=0.0), config)
    model.compile(loss="mse")
    x = {**tiny.inputs(model.backbone), "task_ids": [0, 1, 1, 0]}
    targets = model.predict(x, verbose=0)
    found = model.evaluate(x, targets, verbose=0, return_dict=True)
    assert set(found) == {"loss", "pooled_output_loss", "sequence_output_loss"}
    np.testing.assert_allclose(list(found.values()), 0, atol=1e-9)


def test_a_metric_over_tokens_that_is_no_mean():
    """Perplexity: e to the power of the mean over a task's tokens."""
    backbone = tiny.with_large_weights(tiny.backbone("gpt2", dropout=0.0))
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=2, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(backbone, config)
    metrics = [keras_hub.metrics.Perplexity(from_logits=True, mask_token_id=0)]
    model.compile(metrics=metrics, weighted_metrics=None)
    x = {**tiny.inputs(backbone, rows=6), "task_ids": TASK_IDS[:6]}
    y = np.random.default_rng(0).integers(0, 9, x["token_ids"].shape)
    found = model.evaluate(x, y, batch_size=4, verbose=0, return_dict=True)
    logits = model.predict(x, verbose=0).astype("float64")
    log_p = logits - logits.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, y[..., None], -1)[..., 0]
    for k, name in enumerate(NAMES):
        own = (TASK_IDS[:6] == k)[:, None] & (y != 0)
        expected = np.exp(losses[own].mean())
        np.testing.assert_allclose(found[f"{name}_perplexity"], expected, rtol=1e-4)
