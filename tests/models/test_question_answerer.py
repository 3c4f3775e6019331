"""Answers as spans: their loss, the best of them, and what is refused."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.models import best_spans
from tests import tiny

TASK_IDS, SPANS = np.array([0, 1, 1, 0]), np.array([[0, 5], [1, 3], [2, 2], [0, 1]])


def make():
    """A model of two tasks with random weights, and inputs of which odd rows are padded."""
    backbone = tiny.backbone("plain")
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="QUESTION_ANS", num_virtual_tokens=3, num_tasks=2
    )
    model = keras_mpt.prompt_tune(backbone, config)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model, {**tiny.inputs(backbone), "task_ids": TASK_IDS}


def test_loss_is_the_mean_of_start_and_end():
    model, x = make()
    logits = model.predict(x, verbose=0).astype("float64")
    assert logits.shape == (4, 2, 6)
    mask = x["padding_mask"] == 1
    assert (logits.transpose(0, 2, 1)[~mask] == -1e9).all()
    losses = []
    for row in range(4):
        for end in range(2):
            kept = logits[row, end][mask[row]]
            kept = kept - kept.max()
            losses.append(np.log(np.exp(kept).sum()) - kept[SPANS[row, end]])
    logs = model.evaluate(x, SPANS, return_dict=True, verbose=0)
    np.testing.assert_allclose(logs["loss"], np.mean(losses), rtol=1e-5)
    own = np.reshape(losses, (4, 2))[TASK_IDS == 1].mean()
    np.testing.assert_allclose(logs["task_1_loss"], own, rtol=1e-5)


def test_best_spans_against_every_span():
    logits = np.random.default_rng(0).normal(size=(20, 2, 7))
    for max_length in (1, 3, 30):
        for row, found in zip(logits, best_spans(logits, max_length), strict=True):
            spans = [(s, e) for s in range(7) for e in range(s, min(7, s + max_length))]
            assert tuple(found) == max(spans, key=lambda span: row[0, span[0]] + row[1, span[1]])
    with pytest.raises(ValueError, match="`logits` should have shape .B, 2, S.. Received: logits"):
        best_spans(logits[:, 0])
    with pytest.raises(ValueError, match="`max_length` should be at least 1. Received: max_length"):
        best_spans(logits, 0)


def test_it_learns_saves_and_loads(tmp_path):
    model, x = make()
    model.compile(keras.optimizers.Adam(0.05))
    history = model.fit(x, SPANS, epochs=30, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-5)
    model.save_adapter(tmp_path / "adapter")
    state = keras_mpt.read_state_dict(tmp_path / "adapter")
    weight = state["base_model.qa_outputs.weight"]
    np.testing.assert_array_equal(weight, ops.convert_to_numpy(model.logits.kernel).T)
    adapter = keras_mpt.load_adapter(model.backbone, tmp_path / "adapter")
    np.testing.assert_array_equal(adapter.predict(x, verbose=0), expected)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        (SPANS[:, 0], r"first and last token of each row's answer: shape \(4, 2\)"),
        (SPANS[:, ::-1], r"Received: \[5, 0\] in row 0, and 3 wrong spans in all"),
        (SPANS + [[0, 0], [0, 1], [0, 0], [0, 0]], r"Received: \[1, 4\] in row 1, and 1 wrong"),
        (SPANS - 1, r"Received: \[-1, 4\] in row 0, and 2 wrong spans in all"),
    ],
    ids=["one position", "end before start", "padding", "negative"],
)
def test_spans_that_cannot_be_right(spans, message):
    model, x = make()
    with pytest.raises(ValueError, match=message):
        model.fit(x, spans, verbose=0)


def test_a_weight_per_row_counts_for_start_and_end():
    model, x = make()
    weights = np.array([1.0, 0.5, 2.0, 0.0])
    rows = [
        model.evaluate({k: v[i : i + 1] for k, v in x.items()}, SPANS[i : i + 1], verbose=0)[0]
        for i in range(4)
    ]
    logs = model.evaluate(x, SPANS, sample_weight=weights, return_dict=True, verbose=0)
    np.testing.assert_allclose(logs["loss"], np.mean(weights * rows), rtol=1e-5)
    own = np.mean((weights * rows)[TASK_IDS == 1])
    np.testing.assert_allclose(logs["task_1_loss"], own, rtol=1e-5)
    with pytest.raises(ValueError, match="`class_weight` should be left out: Keras takes it for"):
        model.fit(x, SPANS, class_weight={0: 1.0}, verbose=0)


def test_a_number_of_classes_is_refused():
    model, _ = make()
    with pytest.raises(ValueError, match="`num_classes` should be left out: a span has a start"):
        keras_mpt.prompt_tune(model.backbone, model.config, num_classes=3)
