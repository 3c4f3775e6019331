"""Weights that are no finite numbers are refused at every entrance, before a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.fitting.test_bad_input import good
from tests.fitting.test_bad_input import model as model  # A fixture.

BAD = [
    ([1.0, np.nan, 1.0, 1.0], r"sample_weight with nan in row 1"),
    ([1.0, 1.0, 1.0, -np.inf], r"sample_weight with -inf in row 3"),
    (["1", "2", "1", "0"], r"sample_weight of dtype <U1, such as \['1'\]"),
]


def entrances(model, x, y, weight):
    """What would train or measure with the weights."""
    data = tf.data.Dataset.from_tensors((x, y, np.asarray(weight)))
    return {
        "fit": lambda: model.fit(x, y, sample_weight=weight, verbose=0),
        "validation": lambda: model.fit(x, y, validation_data=(x, y, weight), verbose=0),
        "evaluate": lambda: model.evaluate(x, y, sample_weight=weight, verbose=0),
        "train_on_batch": lambda: model.train_on_batch(x, y, weight),
        "test_on_batch": lambda: model.test_on_batch(x, y, weight),
        "generator": lambda: model.fit(((x, y, weight) for _ in range(1)), verbose=0),
        "tf.data": lambda: model.fit(data, verbose=0),
        "prepared": lambda: model.prepared(x, y, weight),
    }


@pytest.mark.parametrize(("weight", "message"), BAD, ids=["nan", "inf", "strings"])
@pytest.mark.parametrize("name", entrances(None, *good(), [1.0] * 4))
def test_weights_that_are_refused(model, weight, message, name):
    before = [keras.ops.convert_to_numpy(v) for v in model.weights]
    if (name, weight[0]) == ("tf.data", "1"):  # Without values yet.
        message = r"sample_weight of dtype <U1, such as \[\]"
    with pytest.raises(ValueError, match="`sample_weight` should hold finite.*" + message):
        entrances(model, *good(), weight)[name]()
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)


@pytest.mark.parametrize("weight", [[2.0, 1.0, 0.0, -1.0], [1, 2, 0, 1], [True, False, True, True]])
def test_other_weights_train(model, weight):
    x, y = good()
    for name in ("evaluate", "tf.data"):
        entrances(model, x, y, weight)[name]()


@pytest.mark.parametrize("weight", [float("nan"), "1", None])
def test_weights_of_classes(model, weight):
    x, y = good()
    message = r"`class_weight\[1\]` should be a number. Received"
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, class_weight={0: 1.0, 1: weight}, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(x, y, class_weight={0: 1.0, 1: weight})
