"""Each row measured by its own task's rule, over its own task's columns.

Where tasks have different numbers of classes, a row has columns of classes that its task has not
(−1e9); where they have different losses, a batch has rows of several. A loss or a metric is then a
list of parts, each for the tasks whose rows are measured alike: every part is computed for all
rows, and each row takes its own part's value.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt._keras import get_keras_mask, set_keras_mask
from keras_mpt.types import Tensor

# The tasks of the rows that a loss or a metric is asked for: Keras hands over no inputs.
_rows: contextvars.ContextVar[Tensor | None] = contextvars.ContextVar(
    "keras_mpt_rows", default=None
)


@contextlib.contextmanager
def of_tasks(task_ids: Tensor | None) -> Iterator[None]:
    """Around what Keras computes of a batch's targets and outputs.

    Args:
        task_ids: integer tensor (B,), or `None` without tasks.
    """
    token = _rows.set(task_ids)
    try:
        yield
    finally:
        _rows.reset(token)


def current_rows() -> Tensor | None:
    """The tasks of the rows that are measured, (B,); `None` without tasks."""
    return _rows.get()


# The losses per target that were computed last, in a list that waits for them; and the weights.
_noted: contextvars.ContextVar[tuple[list[Tensor], Tensor | None] | None] = contextvars.ContextVar(
    "keras_mpt_noted", default=None
)


@contextlib.contextmanager
def noting_losses(weight: Tensor | None) -> Iterator[list[Tensor]]:
    """Around what Keras computes of a loss, which hands out the mean alone.

    Args:
        weight: the targets' weights, (B,) or (B, S), or `None`.

    Yields:
        A list that gets what an `OwnColumnsLoss` gives: a loss per target.
    """
    losses: list[Tensor] = []
    token = _noted.set((losses, weight))
    try:
        yield losses
    finally:
        _noted.reset(token)


@dataclasses.dataclass(frozen=True)
class Part:
    """What the rows of some tasks are measured by.

    Attributes:
        tasks: tuple of ints, the tasks; `None` for all rows, of a part that is the only one.
        function: targets and outputs to a value per row or token.
        classes: int. How many of the columns are these tasks'; `None` for all.
        weight: float. What the values are multiplied by.
    """

    tasks: tuple[int, ...] | None
    function: Callable[[Tensor, Tensor], Tensor]
    classes: int | None = None
    weight: float = 1.0


def values_of(parts: Sequence[Part], y: Tensor, y_pred: Tensor) -> Tensor:
    """Each row's values by its own part.

    Args:
        parts: list of `Part`s.
        y: targets, (B, …).
        y_pred: outputs, (B, …, C).

    Returns:
        A float tensor (B, …) with a Keras mask, where a part's function set one.

    Raises:
        ValueError: one of several parts that gives one value for the whole batch, or a value for
            each row where others give one for each token.
    """
    if parts[0].tasks is None:
        return _weighted(parts[0], parts[0].function(y, y_pred))
    task_ids = current_rows()
    values, mask = None, None
    for part in parts:
        is_own = is_row_of(part.tasks or (), task_ids)
        found = _weighted(part, part.function(*own_columns(y, y_pred, is_own, part.classes)))
        if len(found.shape) == 0:
            raise ValueError(
                "`loss` should give a value per row or token where tasks have losses or numbers of "
                "classes of their own. Received: a loss with one value for the whole batch"
            )
        if len(found.shape) == len(y_pred.shape):  # A value per column, such as binary accuracy's.
            found = ops.mean(found, axis=-1)
        if values is not None and len(values.shape) != len(found.shape):
            raise ValueError(
                "`loss` should give as many values for all tasks. Received: losses with one value "
                f"for each {' and for each '.join(sorted({_each(values), _each(found)}))}"
            )
        is_own = _with_rank(is_own, len(found.shape))
        values = _elsewhere(y_pred, found) if values is None else values
        values = ops.where(is_own, found, values)
        own_mask = get_keras_mask(found)
        if own_mask is not None or mask is not None:
            mask = ops.ones_like(found, dtype="bool") if mask is None else mask
            mask = ops.where(is_own, True if own_mask is None else own_mask, mask)
    if mask is not None:
        set_keras_mask(values, mask)
    return values


def is_row_of(tasks: Sequence[int], task_ids: Tensor) -> Tensor:
    """Which rows are of some tasks: bool (B,)."""
    return ops.any(ops.equal(task_ids[:, None], np.array(tasks, "int32")), axis=1)


def own_columns(
    y: Tensor, y_pred: Tensor, is_own: Tensor, classes: int | None
) -> tuple[Tensor, Tensor]:
    """Targets and outputs without the columns that tasks have not, zero in other tasks' rows.

    Those rows' values are not used, but they must be numbers, for the gradient's sake.

    Args:
        y: targets, (B, …).
        y_pred: outputs, (B, …, C).
        is_own: bool tensor (B,).
        classes: int. How many columns the tasks have; `None` for all.

    Returns:
        The two.
    """
    if classes is not None:
        has_columns = len(y.shape) == len(y_pred.shape) and y.shape[-1] == y_pred.shape[-1]
        y = y[..., :classes] if has_columns else y
        y_pred = y_pred[..., :classes]
    return _where(is_own, with_outputs_axis(y, y_pred)), _where(is_own, y_pred)


def by_shapes(binary: Any, sparse: Any, categorical: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """As Keras chooses among the kinds of accuracy and of cross-entropy."""

    def chosen(y: Tensor, y_pred: Tensor) -> Tensor:
        if y_pred.shape[-1] == 1:
            return binary(y, y_pred)
        is_sparse = len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1
        return (sparse if is_sparse else categorical)(y, y_pred)

    return chosen


def with_outputs_axis(y: Tensor, y_pred: Tensor) -> Tensor:
    """Targets of one output with an axis for it, as the outputs have.

    Keras would take (B, S) targets of (B, S, 1) outputs for S outputs of a row.
    """
    is_missing = len(y.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1
    return ops.expand_dims(y, -1) if is_missing else y


def weight_per_target(weight: Tensor, y: Tensor) -> Tensor:
    """Weights of rows as weights of each of a row's targets.

    Keras would lay weights (B,) along the last axis of targets (B, S).

    Args:
        weight: float tensor (B,) or (B, S).
        y: targets, (B,) or (B, S), or values of them, (B, S, 1).

    Returns:
        A float tensor of the shape of `y`.
    """
    for _ in range(len(y.shape) - len(weight.shape)):
        weight = ops.expand_dims(weight, -1)
    return ops.broadcast_to(weight, ops.shape(y))


class OwnColumnsLoss(keras.losses.Loss):
    """The loss of each row by its own part.

    Args:
        parts: list of `Part`s.
        reduction: string. That of all parts.
        dtype: likewise. Defaults to `None`: Keras's.
    """

    def __init__(self, parts: Sequence[Part], reduction: str | None, dtype: Any = None) -> None:
        super().__init__(name="loss", reduction=reduction, dtype=dtype)
        self.parts = list(parts)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """A loss per row or token.

        Raises:
            ValueError: fewer values than targets that have a weight each.
        """
        values = values_of(self.parts, y_true, y_pred)
        values = values if ops.is_tensor(values) else ops.convert_to_tensor(values)
        if (noted := _noted.get()) is not None:
            losses, weight = noted
            check_each_has_one(values, weight)
            losses.append(values)
        return values


def check_each_has_one(values: Tensor, weight: Tensor | None, argument: str = "loss") -> None:
    """Refuses values that have added up what weighs nothing, such as padding and prompts.

    Args:
        values: what a loss or a metric gave.
        weight: the targets' weights, (B,) or (B, S), or `None`.
        argument: string. Of `compile`. Defaults to `"loss"`.

    Raises:
        ValueError: fewer values than targets that have a weight each.
    """
    if weight is None:
        return
    # Keras leaves out an axis of one target.
    left = (*values.shape, *[1] * len(weight.shape))
    if all(size == 1 or left[axis] != 1 for axis, size in enumerate(weight.shape) if axis):
        return
    raise ValueError(
        f"`{argument}` should give a value for each of a row's targets, (B, S), as each has a "
        "weight: that of padding and of a prompt's tokens is 0. Leave out its mean or sum: the "
        f"values are weighed first. Received: a function with one value for {_given(values)}"
    )


def _given(values: Tensor) -> str:
    return "the whole batch" if len(values.shape) == 0 else "each row"


def _each(values: Tensor) -> str:
    return "row" if len(values.shape) == 1 else "token"


class OwnColumnsMean(keras.metrics.Mean):
    """The mean of each row's values by its own part.

    Args:
        parts: list of `Part`s.
        name: string.
    """

    def __init__(self, parts: Sequence[Part], name: str) -> None:
        super().__init__(name=name)
        self.parts = list(parts)

    def update_state(self, y: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Adds a batch."""
        super().update_state(values_of(self.parts, y, y_pred), sample_weight)


def _elsewhere(y_pred: Tensor, values: Tensor) -> Tensor:
    """Zero in rows of no part's tasks, but NaN in those of no task: their outputs are NaN."""
    outputs = ops.cast(ops.reshape(y_pred, (ops.shape(y_pred)[0], -1)), values.dtype)
    zeros = ops.stop_gradient(0.0 * ops.sum(outputs, axis=1))
    return ops.broadcast_to(_with_rank(zeros, len(values.shape)), ops.shape(values))


def _weighted(part: Part, values: Any) -> Tensor:
    if part.weight == 1.0:
        return values
    mask, values = get_keras_mask(values), values * part.weight
    if mask is not None:
        set_keras_mask(values, mask)
    return values


def _with_rank(rows: Tensor, rank: int) -> Tensor:
    return ops.reshape(rows, (-1, *[1] * (rank - 1)))


def _where(is_own: Tensor, values: Tensor) -> Tensor:
    return ops.where(_with_rank(is_own, len(values.shape)), values, ops.zeros_like(values))
