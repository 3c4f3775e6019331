"""Data are checked where they enter, and there alone."""

import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.fitting import model_inputs
from tests import tiny
from tests.marks import IS_EAGER


@pytest.fixture
def model():
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=2, num_tasks=2, task_names=["a", "b"]
    )
    return keras_mpt.models.PromptTunedTextClassifier(tiny.backbone("plain"), config, 2)


@pytest.fixture
def counted(monkeypatch):
    """How often task ids were checked, and of how many rows."""
    rows, check = [], model_inputs.check_task_ids

    def counting(task_ids, *args):
        found = check(task_ids, *args)
        rows.append(found.shape[0])
        return found

    monkeypatch.setattr(model_inputs, "check_task_ids", counting)
    return rows


def data(model, rows=8):
    x = {**tiny.inputs(model.backbone, rows=rows), "task_ids": ["a", "b"] * (rows // 2)}
    return x, np.arange(rows) % 2


@pytest.mark.skipif(not IS_EAGER, reason="a compiled graph sees no values")
def test_arrays_are_checked_whole_and_not_again_in_each_step(model, counted):
    x, y = data(model)
    model.fit(x, y, batch_size=2, verbose=0, validation_data=(x, y))
    counted.clear()  # Of the rows by which Keras built the loss and the metrics.
    model.fit(x, y, batch_size=2, epochs=2, verbose=0, validation_data=(x, y))
    assert counted == [8, 8]
    model.predict(x, batch_size=2, verbose=0)
    model.evaluate(x, y, batch_size=2, verbose=0)
    assert counted == [8] * 4
    model(x)
    assert counted == [8] * 5


def test_a_call_within_a_step_of_another_model_is_checked(model):
    """A stream may ask a model for what the next batch needs: that one, or another."""
    other = model.fold("a")
    x, y = data(model)

    def batches(asked, **changes):
        for _ in range(2):
            asked({**{k: v for k, v in x.items() if k != "task_ids"}, **changes})
            yield x, y

    model.fit(batches(other), verbose=0)
    with pytest.raises(ValueError, match="with unknown"):
        model.fit(batches(other, task_ids=0), verbose=0)
    if not IS_EAGER:  # On JAX a model has no values while it is trained.
        return
    model.fit(batches(model, task_ids=["a", "b"] * 4), verbose=0)
    with pytest.raises(ValueError, match="`task_ids` should name a task"):
        model.fit(batches(model, task_ids=["a", "c"] * 4), verbose=0)
    # Tensors such as Keras itself hands over are checked as well.
    with pytest.raises(ValueError, match=r"`task_ids` should lie in \[0, 2\)"):
        model.fit(batches(model, task_ids=ops.convert_to_tensor([0, 2] * 4)), verbose=0)


def test_a_direct_call_after_a_step_that_failed_is_checked(model):
    x, y = data(model)
    with pytest.raises(ZeroDivisionError):
        model.fit(((x, y[: 1 // n]) for n in (0,)), verbose=0)
    with pytest.raises(ValueError, match=r"`task_ids` should lie in \[0, 2\)"):
        model({**x, "task_ids": [2] * 8})
