"""Tasks of different kinds in one model, and each task's own loss in the logs."""

import keras
import numpy as np
import pytest
from keras import losses, metrics, ops

import keras_mpt
from tests import tiny
from tests.fitting.kinds import (
    NAMES,
    SCORES,
    TASK_IDS,
    evaluate,
    log_softmax,
    make,
    of_tokens,
    own_logits,
    rows_of,
)
from tests.marks import only_eager


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
