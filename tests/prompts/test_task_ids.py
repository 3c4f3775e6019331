"""The one check of task ids that layers, models and streams share."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mpt.prompts.task_ids import check_task_ids, concrete

NAMES = ["tone", "topic", "intent"]


@pytest.mark.parametrize(
    ("task_ids", "expected"),
    [
        ([2, 0, 2], [2, 0, 2]),
        ((0, 1), [0, 1]),
        (np.array([0, 2], "uint8"), [0, 2]),
        (np.array([0, 2], "int64"), [0, 2]),
        ("topic", 1),
        (b"intent", 2),
        (["intent", "tone"], [2, 0]),
        ([b"topic", b"topic"], [1, 1]),
        (np.array(["tone", "intent"]), [0, 2]),
        (np.array([b"tone", b"intent"]), [0, 2]),
        (np.array(["tone", b"intent"], object), [0, 2]),
        (1, 1),
        (np.int8(2), 2),
        (np.array([], "int32"), []),
    ],
)
def test_accepted(task_ids, expected):
    found = check_task_ids(task_ids, num_tasks=3, names=NAMES)
    assert found.dtype == "int32"
    np.testing.assert_array_equal(found, np.array(expected, "int32"), strict=True)


def test_backend_tensor_becomes_an_array():
    found = check_task_ids(ops.convert_to_tensor(np.array([1, 2], "uint8")), num_tasks=3)
    np.testing.assert_array_equal(found, np.array([1, 2], "int32"), strict=True)


def test_tensorflow_strings_under_any_backend():
    """A `tf.data` stream gives names as bytes, whatever Keras runs on."""
    tf = pytest.importorskip("tensorflow", reason="the names come from TensorFlow")
    found = check_task_ids(tf.constant(["intent", "tone"]), num_tasks=3, names=NAMES)
    np.testing.assert_array_equal(found, [2, 0])


@pytest.mark.parametrize("task_ids", [1, np.int64(1), "topic", np.array(1)])
def test_scalars_are_broadcast(task_ids):
    found = check_task_ids(task_ids, num_tasks=3, batch_size=4, names=NAMES)
    np.testing.assert_array_equal(found, np.array([1, 1, 1, 1], "int32"), strict=True)


def test_the_given_array_is_not_changed_or_shared():
    given = np.array([0, 2], "int32")
    check_task_ids(given, num_tasks=3)[0] = 1
    np.testing.assert_array_equal(given, [0, 2])


def test_symbolic_ids_come_back_as_they_are():
    symbolic = keras.Input((), dtype="int64")
    assert concrete(symbolic) is None
    assert check_task_ids(symbolic, num_tasks=3, batch_size=5) is symbolic


@pytest.mark.parametrize(
    ("task_ids", "message"),
    [
        (None, r"should be given: one of this model's 3 tasks per row. Received: task_ids=None"),
        ([0, None], r"should be given for every row. Received: task_ids=\[0, None\]"),
        (1.0, r"should be integers. Received: task_ids of dtype float64: \[1.0\]"),
        ([0.5, 1.5], r"should be integers.*\[0.5, 1.5\]"),
        (np.float32(1), r"should be integers. Received: task_ids of dtype float32: \[1.0\]"),
        (True, r"should be integers. Received: task_ids of dtype bool: \[True\]"),
        ([], r"should be integers.*float64: \[\]"),
        (2**70, r"should be integers.*1180591620717411303424"),
        ({0, 1}, r"should be integers.*\{0, 1\}"),
        ([[0], [1, 2]], r"should be integers.*task_ids=\[\[0\], \[1, 2\]\] of type list"),
        ([[0, 1]], r"should be one id, or have shape \(batch_size,\).*shape \(1, 2\)"),
        ([["tone"], ["topic"]], r"should be one id, or have shape \(batch_size,\).*shape \(2, 1\)"),
        (3, r"should lie in \[0, 3\): this model has 3 tasks. Received: task_ids with \[3\]"),
        ([0, 5, -1, 5], r"should lie in \[0, 3\).*Received: task_ids with \[-1, 5\]$"),
        (2**40, r"should lie in \[0, 3\).*1099511627776"),
        (np.array([2**63], "uint64"), r"should lie in \[0, 3\).*9223372036854775808"),
        (range(3, 20), r"should lie in \[0, 3\).*\[3, 4, 5, 6, 7, 8, 9, 10\] …"),
        (["tone", "Topic", "mood"], r"should name a task: one of \['tone'.*\['Topic', 'mood'\]"),
        (["tone", 1], r"should name a task: one of .*Received: task_ids with \['1'\]"),
    ],
)
def test_refused(task_ids, message):
    with pytest.raises(ValueError, match=f"`task_ids` {message}"):
        check_task_ids(task_ids, num_tasks=3, names=NAMES)


def test_names_for_tasks_without_names():
    message = r"`task_ids` should name a task: this model's tasks have no names.*\['tone'\]"
    with pytest.raises(ValueError, match=message):
        check_task_ids("tone", num_tasks=3)


@pytest.mark.parametrize("length", [1, 3, 5])
def test_wrong_length(length):
    message = f"`task_ids` should have one id per row: 4 of them. Received: {length} task_ids"
    with pytest.raises(ValueError, match=message):
        check_task_ids([0] * length, num_tasks=3, batch_size=4)
    with pytest.raises(ValueError, match=message):
        check_task_ids(keras.Input(batch_shape=(length,), dtype="int32"), 3, batch_size=4)
