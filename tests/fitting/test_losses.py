"""Losses and metrics of logits, over each row's own task's columns, against NumPy in float64."""

import functools

import keras
import keras_hub
import numpy as np
import pytest
from keras import losses, metrics, ops

import keras_mpt
from tests import tiny
from tests.marks import only_eager

NAMES, TASK_IDS = ["nli", "score"], np.array([0, 1, 0, 0, 1, 0])
LABELS = np.array([0, 1, 2, 1, 0, 2])


@functools.cache
def make(*num_classes):
    """A classifier with random weights, its inputs and its logits in float64."""
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=list(num_classes))
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    x = {**tiny.inputs(model.backbone, rows=6), "task_ids": TASK_IDS}
    return model, x, ops.convert_to_numpy(model(x)).astype("float64")


def evaluate(model, x, y, **kwargs):
    """All logs, in one batch."""
    return model.evaluate(x, y, verbose=0, return_dict=True, **kwargs)


def rows_of(x, k):
    """The inputs of one task's rows."""
    return {name: value[k == TASK_IDS] for name, value in x.items()}


def log_softmax(logits):
    """In float64."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def own_logits(logits, num_classes):
    """Each row's logits of its own task's classes."""
    return [row[: num_classes[k]] for row, k in zip(logits, TASK_IDS, strict=True)]


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


SCORES = np.array([0, 0.1, 2, 1, 3.7, 2])


def test_tasks_of_different_kinds_train_in_one_batch():
    """Classes and a score: every task's loss, metrics, and the gradient of the weighted sum."""
    model, x, logits = make(3, 1)
    start = model.get_weights()
    model.compile(
        keras.optimizers.SGD(0.1),
        {"nli": "sparse_categorical_crossentropy", "score": "mse"},
        loss_weights={"score": 0.5},
        metrics={"score": ["mae", metrics.R2Score()], "nli": ["accuracy"]},
    )
    of_rows = np.array(
        [
            0.5 * (z[0] - y) ** 2 if k else -log_softmax(z)[int(y)]
            for z, y, k in zip(logits, SCORES, TASK_IDS, strict=True)
        ]
    )
    found = evaluate(model, x, SCORES)
    assert set(found) == {
        *("loss", "nli_loss", "nli_accuracy", "score_loss", "score_mae", "score_r2_score")
    }
    np.testing.assert_allclose(found["loss"], of_rows.mean(), rtol=1e-5)
    is_score = TASK_IDS == 1
    np.testing.assert_allclose(found["score_loss"], of_rows[is_score].mean(), rtol=1e-5)
    np.testing.assert_allclose(found["nli_loss"], of_rows[~is_score].mean(), rtol=1e-5)
    right = (logits.argmax(-1) == SCORES)[~is_score].mean()
    np.testing.assert_allclose(found["nli_accuracy"], right, rtol=1e-6)
    error = logits[is_score, 0] - SCORES[is_score]
    np.testing.assert_allclose(found["score_mae"], np.abs(error).mean(), rtol=1e-5)
    spread = ((SCORES[is_score] - SCORES[is_score].mean()) ** 2).sum()
    np.testing.assert_allclose(found["score_r2_score"], 1 - (error**2).sum() / spread, rtol=1e-4)
    # The head's bias moves by the mean of each row's own gradient.
    model.fit(x, SCORES, verbose=0)
    bias = dict(zip([w.path for w in model.weights], model.get_weights(), strict=True))
    moved = next(v for path, v in bias.items() if path.endswith("bias") and v.shape == (4,))
    before = next(
        s
        for w, s in zip(model.weights, start, strict=True)
        if w.path.endswith("bias") and s.size == 4
    )
    gradient = np.zeros(4)
    for z, y, k in zip(logits, SCORES, TASK_IDS, strict=True):
        if k:
            gradient[3] += (z[0] - y) / 6
        else:
            gradient[:3] += (np.exp(log_softmax(z)) - np.eye(3)[int(y)]) / 6
    np.testing.assert_allclose(before - moved, 0.1 * gradient, rtol=1e-4, atol=1e-6)
    model.set_weights(start)


@only_eager
def test_each_task_alone_is_what_it_is_beside_the_other():
    model, x, _ = make(3, 1)
    model.compile()  # One class is a score, as in transformers.
    found = evaluate(model, x, SCORES)
    assert {"nli_accuracy", "score_mae"} < set(found)
    assert "accuracy" not in found
    for k, name in enumerate(NAMES):
        alone = evaluate(model, rows_of(x, k), SCORES[k == TASK_IDS])
        np.testing.assert_allclose(found[f"{name}_loss"], alone["loss"], rtol=1e-5)
    model.compile(loss={"score": "bce"}, metrics={"score": ["accuracy"]})
    halves = np.array([0, 1, 2, 1, 0, 2])
    found = evaluate(model, x, halves)
    logits = ops.convert_to_numpy(model(x))[TASK_IDS == 1, 0]
    assert found["score_accuracy"] == ((logits > 0) == halves[TASK_IDS == 1]).mean()
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\] for the 1 classes of task 'score'"):
        model.fit(x, SCORES, verbose=0)


@only_eager
def test_one_class_has_nothing_to_choose():
    model, x, logits = make(1, 1)
    model.compile()
    found = evaluate(model, x, SCORES)
    np.testing.assert_allclose(found["loss"], ((logits[:, 0] - SCORES) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["mae"], np.abs(logits[:, 0] - SCORES).mean(), rtol=1e-5)
    for loss in ("sparse_categorical_crossentropy", "categorical_crossentropy"):
        with pytest.raises(
            ValueError, match="where there is one class: among one there is nothing"
        ):
            model.compile("adam", loss)


@only_eager
@pytest.mark.parametrize(
    "reduction", ["sum_over_batch_size", "mean", "mean_with_sample_weight", "sum"]
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_classes", [(4, 2), (4, 4)])
def test_a_task_s_report_is_what_evaluate_gives_on_its_rows(reduction, weighted, num_classes):
    model, x, _ = make(*num_classes)
    y = np.array([-1, 1, 2, -1, 0, 3])
    options = {"from_logits": True, "ignore_class": -1, "reduction": reduction}
    model.compile("adam", losses.SparseCategoricalCrossentropy(**options), loss_weights=2.0)
    weights = np.array([1.0, 2.0, 0.5, 3.0, 0.25, 1.5], "float32") if weighted else None
    found = evaluate(model, x, y, sample_weight=weights)
    for k, name in enumerate(NAMES):
        own = k == TASK_IDS
        alone = evaluate(
            model, rows_of(x, k), y[own], sample_weight=weights[own] if weighted else None
        )
        np.testing.assert_allclose(found[f"{name}_loss"], alone["loss"], rtol=1e-5)


def test_ignored_labels_by_hand():
    """Each label that counts, counts alike."""
    model, x, logits = make(4, 2)
    y = np.array([-1, 1, 2, -1, 0, 3])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile("adam", loss, run_eagerly=True)
    of_rows = [
        -log_softmax(z)[label] for z, label in zip(own_logits(logits, [4, 2]), y, strict=True)
    ]
    of_rows, counts = np.array(of_rows), y >= 0
    found = evaluate(model, x, y)
    np.testing.assert_allclose(found["loss"], of_rows[counts].mean(), rtol=1e-5)
    for k, name in enumerate(NAMES):
        own = of_rows[counts & (k == TASK_IDS)].mean()
        np.testing.assert_allclose(found[f"{name}_loss"], own, rtol=1e-5)


def of_tokens(kind, **kwargs):
    """A model with a target per token, its inputs and its logits in float64."""
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=kind, num_virtual_tokens=2, num_tasks=2, task_names=NAMES
    )
    backbone = tiny.backbone("gpt2" if kind == "CAUSAL_LM" else "plain")
    model = keras_mpt.prompt_tune(tiny.with_large_weights(backbone), config, **kwargs)
    x = {**tiny.inputs(backbone, rows=6), "task_ids": TASK_IDS}
    return model, x, model.predict(x, verbose=0).astype("float64")


@only_eager
def test_reports_of_tokens_are_what_evaluate_gives_on_a_task_s_rows():
    cases = {"CAUSAL_LM": ({}, 9), "TOKEN_CLS": ({"num_classes": [4, 2]}, 2)}
    for kind, (kwargs, limit) in cases.items():
        model, x, _ = of_tokens(kind, **kwargs)
        y = np.random.default_rng(0).integers(0, limit, x["token_ids"].shape)
        y[np.random.default_rng(1).random(y.shape) < 0.4] = -100
        for reduction in ("sum_over_batch_size", "mean_with_sample_weight", "sum"):
            options = {"from_logits": True, "ignore_class": -100, "reduction": reduction}
            model.compile("adam", losses.SparseCategoricalCrossentropy(**options))
            found = evaluate(model, x, y)
            for k, name in enumerate(NAMES):
                alone = evaluate(model, rows_of(x, k), y[k == TASK_IDS])
                np.testing.assert_allclose(found[f"{name}_loss"], alone["loss"], rtol=1e-5)


def test_scores_of_tokens_leave_padding_out():
    """Of (B, S) targets and (B, S, 1) outputs Keras would take S outputs for a row's."""
    model, x, logits = of_tokens("TOKEN_CLS", num_classes=[3, 1])
    y = np.random.default_rng(0).integers(0, 3, x["token_ids"].shape).astype("float32")
    y[:, 0] = -100
    model.compile(run_eagerly=True)
    found = evaluate(model, x, y)
    counts = (y != -100) & (x["padding_mask"] != 0)
    of_score = (TASK_IDS == 1)[:, None] & counts
    expected = ((logits[..., 0] - y) ** 2)[of_score].mean()
    np.testing.assert_allclose(found["score_loss"], expected, rtol=1e-5)
    picked = np.take_along_axis(log_softmax(logits), y.astype(int)[..., None] % 3, -1)[..., 0]
    of_labels = (TASK_IDS == 0)[:, None] & counts
    np.testing.assert_allclose(found["nli_loss"], -picked[of_labels].mean(), rtol=1e-5)
    both = np.where(of_score, (logits[..., 0] - y) ** 2, -picked)[counts].mean()
    np.testing.assert_allclose(found["loss"], both, rtol=1e-5)


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


@only_eager
def test_added_tasks_keep_what_was_compiled():
    model, x, _ = make(3, 1)
    keras.utils.set_random_seed(0)
    fresh = keras_mpt.prompt_tune(tiny.backbone("plain"), model.config, num_classes=[3, 1])
    fresh.compile(loss={"nli": "auto", "score": "mse"}, metrics={"score": ["mae"]})
    fresh.add_task("more", num_classes=2)
    x = {**x, "task_ids": np.array([0, 1, 0, 2, 2, 0])}
    found = evaluate(fresh, x, np.array([0, 3.5, 1, 1, 0, 2]))
    assert {"nli_loss", "score_mae", "more_loss"} < set(found)
    fresh.remove_task("more")
    fresh.rename_task("score", "rating")
    assert "rating_mae" in evaluate(fresh, {**x, "task_ids": TASK_IDS}, SCORES)


@only_eager
def test_a_task_that_the_loss_cannot_take_is_refused_before_it_is_added():
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=[3, 2])
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.get_weights()
    with pytest.raises(ValueError, match="for task 'rating': loss="):
        model.add_task("rating", num_classes=1)
    assert model.config.task_names == NAMES
    assert [w.shape for w in model.get_weights()] == [w.shape for w in before]
