"""What a task's prompt is, as pure functions.

Letters, here and throughout: B rows, L `num_virtual_tokens`, M `num_transformer_submodules`,
d `token_dim`, T `num_tasks`, R `num_ranks`.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mpt.types import Tensor


def combine(shared: Tensor, cols: Tensor, rows: Tensor) -> Tensor:
    """P ∘ (cols · rows): the shared prompt scaled entry by entry by a task's low-rank matrix.

    Args:
        shared: float tensor, (M·L, d) or (B, M·L, d).
        cols: float tensor, (B, M·L, R).
        rows: float tensor, (B, R, d).

    Returns:
        A float tensor, (B, M·L, d).
    """
    return shared * ops.matmul(cols, rows)


def gather(table: Tensor, indices: Tensor) -> Tensor:
    """`table[indices]` along axis 0, with a dense gradient on every backend.

    TensorFlow gives a variable gathered as it stands an `IndexedSlices` gradient, which Adam then
    treats lazily: with repeated indices the weights come out different from JAX's and PyTorch's.
    The gradient of a reshape is dense, so the gather is done after one.

    Args:
        table: variable or float tensor, (N, …).
        indices: integer tensor of any shape.

    Returns:
        A tensor, indices' shape + (…).
    """
    return ops.take(ops.reshape(table, table.shape), indices, axis=0)


def gather_factors(cols: Tensor, rows: Tensor, task_ids: Tensor) -> tuple[Any, Any]:
    """The factors of the batch's tasks: only those, so memory does not grow as T·L·d.

    An id outside [0, T) gets NaN. Checks before a graph is entered refuse such ids with an error;
    where a compiled graph hides them all the same, no backend's own rule for indices (clamping,
    wrapping, zeros) may hand a row another task's prompt.

    Args:
        cols: variable, (T, M·L, R).
        rows: variable, (T, R, d).
        task_ids: integer tensor, (B,).

    Returns:
        `(cols, rows)` of shapes (B, M·L, R) and (B, R, d).
    """
    safe_ids, poison = safe_task_ids(task_ids, cols.shape[0])
    task_cols = gather(cols, safe_ids)
    task_rows = gather(rows, safe_ids)
    task_cols = task_cols + ops.cast(poison, task_cols.dtype)[:, None, None]
    return task_cols, task_rows


def safe_task_ids(task_ids: Tensor, num_tasks: int) -> tuple[Any, Any]:
    """Ids that can be looked up, and what to add to what is made of them.

    Args:
        task_ids: integer tensor, (B,).
        num_tasks: int. T.

    Returns:
        The ids, those outside [0, T) being 0, and a float32 tensor (B,): 0, or NaN for those.
    """
    # Compared as uint8, 300 tasks would be 44; narrowed to int32, id 2**32 would be 0.
    is_wide = keras.backend.standardize_dtype(task_ids.dtype) in ("int64", "uint64")
    task_ids = ops.cast(task_ids, "int64" if is_wide else "int32")
    valid = ops.logical_and(task_ids >= 0, task_ids < num_tasks)
    safe_ids = ops.where(valid, task_ids, ops.zeros_like(task_ids))
    return safe_ids, ops.cast(ops.where(valid, 0.0, float("nan")), "float32")
