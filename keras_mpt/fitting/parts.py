"""The loss of a part of a batch, so that the parts of all devices add up to the loss of all rows.

JAX computes a batch's loss over its devices as over one. TensorFlow's replicas and PyTorch's
processes take a mean each, and then the mean of these: another number where parts differ in their
rows, as a partial last batch's do, or in how many of a row's tokens count.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_mpt.fitting.objective import Objective
from keras_mpt.processes import process_count
from keras_mpt.types import Tensor

# Adds a tensor up over the processes, and their number; `None` where there is one.
Sum = tuple[Callable[[Tensor], Tensor], int]
_processes: contextvars.ContextVar[Sum | None] = contextvars.ContextVar(
    "keras_mpt_processes", default=None
)


@contextlib.contextmanager
def among_processes(add_up: Callable[[Tensor], Tensor], count: int) -> Iterator[None]:
    """Around a training whose batches are parts of those that all processes have together.

    Args:
        add_up: function of a tensor that gives its sum over the processes.
        count: int. How many there are.
    """
    token = _processes.set((add_up, count))
    try:
        yield
    finally:
        _processes.reset(token)


def loss_of_part(
    loss: Tensor, x: Any, weight: Tensor | None, objective: Objective | None, training: bool
) -> Tensor:
    """Keras's loss of a part of a batch, as its share of the loss of all.

    Args:
        loss: float tensor (), what Keras's `compute_loss` gave.
        x: the part's inputs.
        weight: float tensor, its targets' weights as the loss takes them, or `None`.
        objective: what the model is compiled for.
        training: bool. Whether it is a step of training.

    Returns:
        A float tensor () with the gradient of that share; its value is such that the mean over
        parts, by their rows, is the loss of all rows.
    """
    by_weight = objective is not None and objective.reduction == "mean_with_sample_weight"
    if objective is not None and objective.reduction in ("sum", "none", None):
        return loss
    return _share(loss, x, weight if by_weight else None, training)


def mean_of_part(mean: Tensor, x: Any, weight: Tensor | None, training: bool) -> Tensor:
    """A mean over a part of a batch, as its share of the mean over all; see `loss_of_part`.

    Args:
        mean: float tensor ().
        x: the part's inputs.
        weight: float tensor, what each of its values weighs; `None` for one per row.
        training: bool.
    """
    parts = _parts(training)
    if parts is not None and keras.backend.backend() == "tensorflow":
        mean = mean / parts[1]  # As Keras does with a loss: gradients are added up.
    return _share(mean, x, weight, training)


def logs_of_part(logs: dict[str, Any]) -> dict[str, Any]:
    """A step's logs as Keras can take them from TensorFlow's workers.

    It asks for their mean along an axis, which a number has not ("Invalid reduction dimension 0 for
    input with 0 dimensions").

    Args:
        logs: dict of name to float tensor ().
    """
    if keras.backend.backend() != "tensorflow" or process_count() == 1:
        return logs
    import tensorflow as tf

    if not isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        return logs
    return {name: ops.reshape(value, (1,)) for name, value in logs.items()}


def _share(mean: Tensor, x: Any, weight: Tensor | None, training: bool) -> Tensor:
    parts = _parts(training)
    if parts is None:
        return mean
    add_up, count = parts
    rows = ops.cast(ops.shape(next(iter(keras.tree.flatten(x))))[0], "float32")
    own = rows if weight is None else ops.sum(ops.cast(weight, "float32"))
    of_all = add_up(ops.stop_gradient(ops.stack([own, rows])))
    share = ops.cast(ops.divide_no_nan(own, of_all[0]), mean.dtype)
    # The value is logged by the part's rows.
    value = mean * share * ops.cast(ops.divide_no_nan(of_all[1], rows), mean.dtype)
    gradient = mean * share * count
    return gradient + ops.stop_gradient(value - gradient)


def _parts(training: bool) -> Sum | None:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return None
        return lambda x: replica.all_reduce("SUM", x), replica.num_replicas_in_sync
    return _processes.get() if training else None
