import keras
import numpy as np
import pytest

from keras_mpt.training.distances import logits_distance, states_distance, weighted_mean


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_kl_is_numpys(temperature):
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 5, 4, 7))
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(-1)
    found = logits_distance(teacher.astype("float32"), student.astype("float32"), temperature)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=2e-6)


def test_classes_that_a_task_lacks_count_for_nothing():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 3, 2)).astype("float32")
    expected = keras.ops.convert_to_numpy(logits_distance(teacher, student))
    wider = [np.concatenate([x, np.full((3, 2), -1e9, "float32")], -1) for x in (teacher, student)]
    found = keras.ops.convert_to_numpy(logits_distance(*wider))
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_equal_logits_are_at_no_distance():
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    assert np.all(keras.ops.convert_to_numpy(logits_distance(logits, logits)) == 0)


def test_states_distance_is_numpys_over_the_tokens_that_count():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 3, 4, 5))
    mask = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    squares = ((teacher - student) ** 2).mean(-1)
    expected = [squares[0].mean(), squares[1, 0], 0.0]
    found = states_distance(teacher.astype("float32"), student.astype("float32"), mask)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-6)
    found = states_distance(teacher.astype("float32"), student.astype("float32"))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), squares.mean(-1), atol=1e-6)
    sums = ((teacher - student) ** 2).sum(-1)
    given = teacher.astype("float32"), student.astype("float32")
    found = states_distance(*given, mask, "sum")
    expected = [sums[0].sum(), sums[1, 0], 0.0]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, rtol=1e-6)
    found = states_distance(*given, reduction="sum")
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), sums.sum(-1), rtol=1e-6)


def test_weighted_mean_by_hand():
    values, weights = np.array([1.0, 2.0, 6.0], "float32"), np.array([1.0, 0.0, 3.0], "float32")
    assert float(weighted_mean(values, weights)) == (1 + 18) / 4
    assert float(weighted_mean(values)) == 3.0
    assert float(weighted_mean(values, 0 * weights)) == 0.0
