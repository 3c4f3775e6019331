"""The positions whose targets count: a language model's logits are needed at no others.

A vocabulary is wide: with one label word per text, logits at every token are most of a step's
memory and much of its time, and weigh nothing in the loss. So the data of a step hold one more
input, `target_positions`, (B, K) integer: where each row's targets have a weight other than 0, and
−1 after them. The model then gives logits (B, K, V), and the targets and their weights are taken at
the same places.

Letters: B rows, S tokens, K targets that count, at most.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy
from keras_mpt.fitting.losses import is_per_target
from keras_mpt.fitting.objective import Objective
from keras_mpt.splicing.at_positions import at_positions
from keras_mpt.types import TargetData, Tensor

# The input's name.
TARGET_POSITIONS = "target_positions"
# Of all positions: where more of them count, it is not worth it to take them out.
_MOST = 0.75
# What a mean over all targets divides by is their number, whatever they weigh.
_MEANS_OVER_ALL = ("sum_over_batch_size", "mean")
# Numbers of positions that data have: each is compiled for itself.
_SIZES = sorted({*(2**n for n in range(31)), *(3 * 2**n for n in range(29))})


# What of a model's own makes outputs, or takes them whole.
_METHODS = (
    *("call", "call_with_states", "after_backbone", "train_step", "test_step"),
    *("compute_loss", "compute_metrics"),
)


def is_ours(cls: type[Any]) -> bool:
    """Whether a model's outputs are made and measured here: a subclass may want them whole."""
    methods = [getattr(cls, name) for name in _METHODS if hasattr(cls, name)]
    return all(method.__module__.split(".")[0] == "keras_mpt" for method in methods)


def suffice(objective: Objective | None) -> bool:
    """Whether the targets that count are all that a model's loss and metrics depend on.

    Args:
        objective: what the model was compiled for, or `None`.
    """
    if objective is None or not objective.has_loss:
        return False
    for goal in objective.goals:
        # A mean over what a loss does not ignore divides by the number of those.
        is_of_others = goal.ignored is not None and goal.reduction in _MEANS_OVER_ALL
        if not is_per_target(goal.loss) or goal.reduction in (None, "none") or is_of_others:
            return False
    return all(asked.weighted and _is_of_keras(asked.metric) for asked in objective.asked)


def are_alone(objective: Objective | None) -> bool:
    """Whether what does not count changes nothing: no mean divides by its number either.

    Args:
        objective: what a model was compiled for, or `None`.
    """
    return (
        objective is not None and suffice(objective) and objective.reduction not in _MEANS_OVER_ALL
    )


def _is_of_keras(metric: Any) -> bool:
    """Whether it is known what a metric makes of weights: of one of a user's own it is not."""
    if isinstance(metric, str):
        return True
    found = type(metric) if isinstance(metric, keras.Metric) else metric
    package = getattr(found, "__module__", "").split(".")[0]
    return package in ("keras", "keras_hub") and found is not keras.metrics.MeanMetricWrapper


def have_weights(y: TargetData, sample_weight: TargetData) -> bool:
    """Whether each of a row's targets, (B, S) or (B, S, C), has a weight of its own."""
    if not hasattr(y, "shape") or not hasattr(sample_weight, "shape"):
        return False
    if getattr(y.shape, "rank", 0) is None or getattr(sample_weight.shape, "rank", 0) is None:
        return False  # Of a traced tensor that does not know it.
    # Of other lengths they are an error, which is not to be hidden.
    return len(y.shape) in (2, 3) and tuple(y.shape[:2]) == tuple(sample_weight.shape)


def find(sample_weight: TargetData) -> np.ndarray:
    """Where weights are not 0.

    Args:
        sample_weight: float array (B, S).

    Returns:
        An int32 array (B, K): each row's positions, then −1.
    """
    counts = to_numpy(sample_weight) != 0
    rows, positions = np.nonzero(counts)
    numbers = counts.sum(axis=1)
    found = np.full((len(counts), _size(int(numbers.max(initial=0)), counts.shape[1])), -1, "int32")
    found[rows, np.arange(len(rows)) - np.repeat(np.cumsum(numbers) - numbers, numbers)] = positions
    return found


def find_tf(sample_weight: Tensor) -> Tensor:
    """`find` inside `tf.data`."""
    import tensorflow as tf

    counts = tf.not_equal(sample_weight, 0)
    numbers = tf.reduce_sum(tf.cast(counts, "int32"), axis=1)
    sizes = tf.constant(_SIZES, "int64")
    size = tf.reduce_min(sizes[sizes >= tf.cast(tf.reduce_max(numbers), "int64")])
    size = tf.minimum(tf.cast(size, "int32"), tf.shape(counts)[1])
    first = tf.argsort(tf.cast(counts, "int32"), axis=1, direction="DESCENDING", stable=True)
    is_one = tf.range(size)[None] < numbers[:, None]
    return tf.where(is_one, first[:, :size], -1)


def are_few(positions: np.ndarray, length: int) -> bool:
    """Whether they are so few of a row's S positions that it is worth it to take them out."""
    return bool(positions.shape[1] <= _MOST * length)


def with_a_size_of_its_own(positions: np.ndarray, length: int) -> np.ndarray:
    """The same in more columns, of a number that `find` never gives for rows of this length."""
    size = positions.shape[1] + 1
    while size in (*_SIZES, length):
        size += 1
    return np.pad(positions, [(0, 0), (0, size - positions.shape[1])], constant_values=-1)


def taken(x: dict[str, Tensor], values: Tensor) -> Tensor:
    """Values per token where the batch has target positions: those at them.

    Args:
        x: dict of a batch's inputs.
        values: tensor (B, S, …).

    Returns:
        A tensor (B, K, …), or `values`.
    """
    positions = x.get(TARGET_POSITIONS)
    return values if positions is None else at_positions(values, positions)


def are_there(x: dict[str, Tensor]) -> Tensor | None:
    """Which of a batch's target positions are some, bool (B, K); `None` where it has none."""
    positions = x.get(TARGET_POSITIONS)
    return None if positions is None else positions >= 0


def share_of_all(x: dict[str, Tensor], y: Tensor, objective: Objective | None) -> Any:
    """K / S where a loss is a mean over all targets: what its mean over K is to be multiplied by.

    Args:
        x: dict of a batch's inputs.
        y: its targets (B, S) or (B, S, C).
        objective: what the model was compiled for.

    Returns:
        A float or a float tensor (); 1.0 where nothing is to be multiplied.
    """
    positions = x.get(TARGET_POSITIONS)
    if positions is None or objective is None or objective.reduction not in _MEANS_OVER_ALL:
        return 1.0
    count, length = ops.shape(positions)[1], ops.shape(y)[1]
    if isinstance(count, int) and isinstance(length, int):
        return count / length
    return ops.cast(count, "float32") / ops.cast(length, "float32")


def _size(number: int, length: int) -> int:
    """The least of `_SIZES` for a number of positions, but no more than S."""
    return min(next(size for size in _SIZES if size >= number), length)
