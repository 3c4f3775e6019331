"""Which prompts a batch needs: each task's once, however many rows it has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_mpt.arrays import concrete
from keras_mpt.prompts.combine import safe_task_ids
from keras_mpt.types import Tensor


class Distinct(NamedTuple):
    """The different prompts of a batch.

    Attributes:
        tasks: int tensor (K,), their tasks; `None` where there is one prompt and no tasks.
        number: int or int tensor (). K; 1 without tasks.
        rows: int tensor (B,). Which of them each row has.
        poison: float tensor (B,). 0, or NaN for a row whose id is outside [0, T).
    """

    tasks: Tensor | None
    number: int | Tensor
    rows: Tensor
    poison: Tensor


def distinct_tasks(
    task_ids: Tensor | None, num_tasks: int | None, batch_size: int | Tensor
) -> Distinct:
    """The different tasks of a batch, and which of them each row has.

    Where the ids can be seen, exactly the different ones. In a compiled graph, whose shapes are
    fixed, min(T, B): all T tasks where these are no more than the rows, else the batch's own, the
    last of them repeated.

    Args:
        task_ids: integer tensor (B,) or (), or `None` without tasks.
        num_tasks: int. T, or `None` without tasks.
        batch_size: int or int tensor (). B.

    Returns:
        A `Distinct`.
    """
    if task_ids is None or num_tasks is None:
        zeros = ops.zeros((batch_size,), "int32")
        return Distinct(None, 1, zeros, ops.cast(zeros, "float32"))
    ids, poison = safe_task_ids(ops.broadcast_to(task_ids, (batch_size,)), num_tasks)
    ids = ops.cast(ids, "int32")
    values = concrete(ids)
    if values is not None:
        tasks, rows = (ops.convert_to_tensor(x) for x in _different(values))
        return Distinct(tasks, tasks.shape[0], rows, poison)
    known_size = ids.shape[0]
    if known_size is not None and num_tasks <= known_size:
        return Distinct(ops.arange(num_tasks, dtype="int32"), num_tasks, ids, poison)
    # Sorted, equal ids stand together; each is numbered by how many others are before it.
    order = ops.argsort(ids)
    ordered = ops.take(ids, order)
    is_new = ops.cast(ops.not_equal(ordered[1:], ordered[:-1]), "int32")
    numbers = ops.cumsum(ops.concatenate([ops.zeros_like(ordered[:1]), is_new], axis=0))
    count = min(num_tasks, known_size) if known_size else ops.minimum(num_tasks, ops.shape(ids)[0])
    firsts = ops.searchsorted(numbers, ops.arange(count, dtype="int32"))
    firsts = ops.minimum(firsts, ops.shape(ids)[0] - 1)
    rows = ops.take(numbers, ops.argsort(order))
    return Distinct(ops.take(ordered, firsts), count, ops.cast(rows, "int32"), poison)


def seen_tasks(
    task_ids: np.ndarray | None, num_tasks: int | None, batch_size: int, is_few: bool = False
) -> tuple[np.ndarray | None, int, np.ndarray]:
    """The different tasks of a batch whose ids were checked: min(T, B), the first ones repeated.

    However many differ, so that one compiled function serves all batches of a size.

    Args:
        task_ids: int array (B,), or `None` without tasks.
        num_tasks: int. T, or `None` without tasks.
        batch_size: int. B.
        is_few: bool. Whether there are only as many as the next power of two. Defaults to `False`.

    Returns:
        Task ids (K,), or `None`; K, 1 without tasks; and which of them each row has (B,).
    """
    if task_ids is None or num_tasks is None:
        return None, 1, np.zeros(batch_size, "int32")
    tasks, rows = _different(task_ids)
    number = min(num_tasks, batch_size)
    if is_few:
        number = min(number, 1 << (len(tasks) - 1).bit_length())
    return np.resize(tasks, number), number, rows


def _different(task_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tasks, rows = np.unique(task_ids, return_inverse=True)
    return tasks.astype("int32"), rows.astype("int32")
