"""A class per token: which tokens count, heads per task, and what is refused."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny

NAMES, CLASSES, TASK_IDS = ["ner", "pos"], [2, 4], np.array([0, 1, 1, 0])


def make(num_classes=CLASSES):
    """A model of two tasks with random weights, and inputs of which odd rows are padded."""
    backbone = tiny.backbone("plain")
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="TOKEN_CLS", num_virtual_tokens=3, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(backbone, config, num_classes=num_classes)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model, {**tiny.inputs(backbone), "task_ids": TASK_IDS}


def labels(x, limits=(2, 4)):
    """Random labels, with the first token of each row ignored and nonsense at padding."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, np.array(limits)[TASK_IDS][:, None], x["token_ids"].shape)
    y[:, 0] = -100
    y[x["padding_mask"] == 0] = 77
    return y


def log_softmax(logits):
    """In float64."""
    logits = logits.astype("float64") - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("num_classes", [CLASSES, 4], ids=["heads", "shared"])
def test_loss_and_accuracy_are_of_the_tokens_that_count(num_classes):
    model, x = make(num_classes)
    y = labels(x)
    logits = model.predict(x, verbose=0)
    assert logits.shape == (4, 6, 4)
    counts = (y != -100) & (x["padding_mask"] == 1)
    chosen = np.take_along_axis(log_softmax(logits), np.where(counts, y, 0)[..., None], -1)[..., 0]
    right = logits.argmax(axis=-1) == y
    logs = model.evaluate(x, y, return_dict=True, verbose=0)
    np.testing.assert_allclose(logs["loss"], -chosen[counts].mean(), rtol=1e-5)
    np.testing.assert_allclose(logs["accuracy"], right[counts].mean(), rtol=1e-5)
    for task, name in enumerate(NAMES):
        of_task = counts & (task == TASK_IDS)[:, None]
        np.testing.assert_allclose(logs[f"{name}_loss"], -chosen[of_task].mean(), rtol=1e-5)
        np.testing.assert_allclose(logs[f"{name}_accuracy"], right[of_task].mean(), rtol=1e-5)


@pytest.mark.parametrize("of_tokens", [False, True], ids=["rows", "tokens"])
def test_sample_weights(of_tokens):
    model, x = make()
    y = labels(x)
    counts = (y != -100) & (x["padding_mask"] == 1)
    logits = model.predict(x, verbose=0)
    chosen = np.take_along_axis(log_softmax(logits), np.where(counts, y, 0)[..., None], -1)[..., 0]
    given = np.array([1.0, 0.5, 2.0, 0.0])
    weights = counts * given[:, None]
    if of_tokens:
        given = np.random.default_rng(2).uniform(size=y.shape)
        weights = counts * given
    logs = model.evaluate(x, y, sample_weight=given, return_dict=True, verbose=0)
    expected = -(chosen * weights).sum() / weights.sum()
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-5)


def test_each_row_has_its_own_task_s_classes():
    model, x = make()
    logits = ops.convert_to_numpy(model(x))
    assert (logits[TASK_IDS == 0][..., 2:] == -1e9).all()
    assert (np.abs(logits[TASK_IDS == 1]) < 1e6).all()
    names = ops.convert_to_numpy(model({**x, "task_ids": [NAMES[i] for i in TASK_IDS]}))
    np.testing.assert_array_equal(names, logits)


def test_what_is_trained(tmp_path):
    model, x = make()
    before = {v.path: ops.convert_to_numpy(v) for v in model.weights}
    model.fit(x, labels(x), epochs=2, verbose=0)
    changed = {v.path for v in model.weights if (before[v.path] != ops.convert_to_numpy(v)).any()}
    assert changed == {v.path for v in model.trainable_weights}
    assert len(changed) == 5  # P, cols, rows, and the heads' kernel and bias.
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-6)
    model.save_adapter(tmp_path / "adapter")
    adapter = keras_mpt.load_adapter(model.backbone, tmp_path / "adapter")
    np.testing.assert_array_equal(adapter.predict(x, verbose=0), expected)


def test_labels_that_cannot_be_right():
    model, x = make()
    y = labels(x)
    with pytest.raises(ValueError, match=r"`y` should have one label per token: shape \(4, 6\)"):
        model.fit(x, y[:, 0], verbose=0)
    y[3, 2] = 2
    message = r"in \[0, 2\), the classes of task 'ner'. Received: label 2 in row 3, and 1 wrong"
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0)
    config = keras_mpt.PromptTuningConfig(task_type="TOKEN_CLS", num_virtual_tokens=3)
    with pytest.raises(ValueError, match="`num_classes` should be given for task_type='TOKEN_CLS'"):
        keras_mpt.prompt_tune(model.backbone, config)
