"""Which prompts a batch needs: each task's once, however many rows it has."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_mpt.prompts.combine import safe_task_ids
from keras_mpt.prompts.task_ids import concrete


def distinct_tasks(task_ids: Any, num_tasks: int) -> tuple[Any, Any, Any]:
    """The different tasks of a batch, and which of them each row has.

    Where the ids can be seen, exactly the different ones. In a compiled graph, whose shapes are
    fixed, min(T, B): all T tasks where these are no more than the rows, else the batch's own, the
    last of them repeated.

    Args:
        task_ids: integer tensor (B,).
        num_tasks: int. T.

    Returns:
        Task ids (K,), the index into them of each row (B,), and a float32 tensor (B,) that is 0, or
        NaN for a row whose id is outside [0, T).
    """
    ids, poison = safe_task_ids(task_ids, num_tasks)
    ids = ops.cast(ids, "int32")
    values = concrete(ids)
    if values is not None:
        tasks, rows = np.unique(values, return_inverse=True)
        return ops.convert_to_tensor(tasks), ops.convert_to_tensor(rows.astype("int32")), poison
    batch_size = ids.shape[0]
    if batch_size is not None and num_tasks <= batch_size:
        return ops.arange(num_tasks, dtype="int32"), ids, poison
    # Sorted, equal ids stand together; each is numbered by how many others are before it.
    order = ops.argsort(ids)
    ordered = ops.take(ids, order)
    is_new = ops.cast(ops.not_equal(ordered[1:], ordered[:-1]), "int32")
    numbers = ops.cumsum(ops.concatenate([ops.zeros_like(ordered[:1]), is_new], axis=0))
    count = min(num_tasks, batch_size) if batch_size else ops.minimum(num_tasks, ops.shape(ids)[0])
    firsts = ops.searchsorted(numbers, ops.arange(count, dtype="int32"))
    firsts = ops.minimum(firsts, ops.shape(ids)[0] - 1)
    rows = ops.take(numbers, ops.argsort(order))
    return ops.take(ordered, firsts), ops.cast(rows, "int32"), poison
