"""Task ids: what is accepted, and the errors where something else comes.

The same function checks ids given to a layer, to a model and in a stream of batches, so that all
of them raise the same words on every backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import concrete
from keras_mpt.checks import is_integer, received


def check_task_ids(
    task_ids: Any,
    num_tasks: int,
    batch_size: int | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """Task ids in the form that the layers take, or an error that says what is wrong.

    Args:
        task_ids: int, task name, list, NumPy array or backend tensor; rank 0 or 1. A scalar is
            broadcast where `batch_size` is known.
        num_tasks: int. T; ids should lie in [0, T).
        batch_size: int. The B that the ids should have, where it is known. Defaults to `None`.
        names: list of T strings, where ids may be names. Defaults to `None`.

    Returns:
        An int32 NumPy array (B,), or for a tensor of a graph being traced (whose values cannot be
        seen) that tensor.

    Raises:
        ValueError: no ids, not integers, another rank or length than wanted, outside [0, T), or a
            name that no task has.
    """
    if task_ids is None:
        raise ValueError(
            f"`task_ids` should be given: one of this model's {num_tasks} tasks per row. "
            "Received: task_ids=None"
        )
    values = concrete(task_ids)
    if values is None:
        _check_dtype(keras.backend.standardize_dtype(task_ids.dtype), task_ids)
        _check_rank(len(task_ids.shape), tuple(task_ids.shape))
        if len(task_ids.shape) == 1:
            _check_length(task_ids.shape[0], batch_size)
        return task_ids
    if values.dtype.kind in "USO":
        values = _ids_of_names(values, names)
    _check_dtype(values.dtype.name, task_ids)
    _check_rank(values.ndim, values.shape)
    wrong = values[(values < 0) | (values >= num_tasks)] if values.size else values
    if wrong.size:
        raise ValueError(
            f"`task_ids` should lie in [0, {num_tasks}): this model has {num_tasks} tasks. "
            f"Received: task_ids with {_some(np.unique(wrong))}"
        )
    values = values.astype("int32")
    if values.ndim == 1:
        _check_length(values.shape[0], batch_size)
    elif batch_size is not None:
        values = np.full((batch_size,), values, "int32")
    return values


def _ids_of_names(values: np.ndarray, names: Sequence[str] | None) -> np.ndarray:
    given = [v.decode() if isinstance(v, bytes) else v for v in values.ravel().tolist()]
    if not all(isinstance(v, str) for v in given):
        if None in given:
            raise ValueError(
                f"`task_ids` should be given for every row. Received: task_ids={_some(values)}"
            )
        # A table may keep integers as objects.
        is_integers = values.size and all(map(is_integer, given))
        return np.asarray(given).reshape(values.shape) if is_integers else values
    ids = {name: k for k, name in enumerate(names or [])}
    unknown = sorted({v for v in given if v not in ids})
    if unknown:
        of = "this model's tasks have no names"
        of = of if names is None else f"one of {received(list(names))}"
        raise ValueError(
            f"`task_ids` should name a task: {of}. Received: task_ids with {received(unknown)}"
        )
    return np.asarray([ids[v] for v in given], "int32").reshape(values.shape)


def _check_dtype(dtype: str, task_ids: Any) -> None:
    if "int" not in dtype:
        raise ValueError(
            f"`task_ids` should be integers. Received: task_ids of dtype {dtype}: {_some(task_ids)}"
        )


def _check_rank(rank: int, shape: tuple[Any, ...]) -> None:
    if rank > 1:
        raise ValueError(
            "`task_ids` should be one id, or have shape (batch_size,). Received: task_ids of shape "
            f"{shape}"
        )


def _check_length(length: int | None, batch_size: int | None) -> None:
    if length is not None and batch_size is not None and length != batch_size:
        raise ValueError(
            f"`task_ids` should have one id per row: {batch_size} of them. Received: {length} "
            "task_ids"
        )


def _some(values: Any) -> str:
    """At most eight of the values, for a message."""
    values = concrete(values)
    if values is None:
        return "unknown values"
    flat = values.ravel()
    return str(flat[:8].tolist()) + (" …" if flat.size > 8 else "")
