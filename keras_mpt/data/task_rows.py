"""Each task's rows, and what all of them must have in common."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np


class TaskRows:
    """One task's rows, for Grain to draw from.

    Args:
        x: dict of arrays (N, …), `task_ids` among them.
        y: array (N, …) or `None`.
    """

    def __init__(self, x: dict[str, np.ndarray], y: np.ndarray | None) -> None:
        self.x = x
        self.y = y

    def __len__(self) -> int:
        return len(self.x["task_ids"])

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        x = {name: value[row] for name, value in self.x.items()}
        return (x,) if self.y is None else (x, self.y[row])

    def checksum(self) -> int:
        """A number that other data would hardly give: CRC-32 of names, shapes and values.

        Returns:
            int.
        """
        arrays = self.x if self.y is None else {**self.x, "y": self.y}
        value = 0
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            value = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), value)
            # The bytes of an array of objects are addresses, other ones in each run.
            is_plain = array.dtype.kind in "biufcUS" and array.size
            content: Any = array.view("uint8") if is_plain else repr(array.tolist()).encode()
            value = zlib.crc32(content, value)
        return value


def task_rows(datasets: Mapping[str, tuple[Any, ...]]) -> list[TaskRows]:
    """Several tasks' data as rows that can stand in one batch.

    Args:
        datasets: dict of task name to `(x, y)` or `(x,)`; `x` is a dict of arrays (N, …), a list of
            N strings, or a pair of such lists, `y` an array or list (N, …) or `None`.

    Returns:
        A list of `TaskRows`, in the same order.

    Raises:
        ValueError: no task, a task without rows or with another number of targets, or with other
            inputs than the rest.
    """
    tasks = [_as_rows(name, k, *data) for k, (name, data) in enumerate(datasets.items())]
    if not tasks:
        raise ValueError("`datasets` should hold at least one task. Received: datasets={}")
    _check_same_inputs(dict(zip(datasets, tasks, strict=True)))
    return tasks


def _as_rows(name: str, k: int, x: Any, y: Any = None) -> TaskRows:
    """One task's data, or an error where they have no rows, or unequal numbers of them."""
    if not isinstance(x, dict):
        x = {"text": x}
    is_pair = isinstance(x.get("text"), tuple)
    if is_pair:
        first, second = x["text"]
        x = {**x, "text": first, "second text": second}
    arrays = {key: np.asarray(value) for key, value in x.items()}
    lengths = {key: len(value) for key, value in arrays.items()}
    rows = next(iter(lengths.values()), 0)
    y = None if y is None else np.asarray(y)
    targets = rows if y is None else len(y)
    if rows == 0 or {*lengths.values(), targets} != {rows}:
        raise ValueError(
            f"`datasets` should have rows, and one target per row, for each task. Received: task "
            f"{name!r} with {targets} targets and rows {lengths}"
        )
    if is_pair:
        arrays["text"] = np.stack([arrays["text"], arrays.pop("second text")], axis=1)
    arrays["task_ids"] = np.full(rows, k, "int32")
    return TaskRows(arrays, y)


def _check_same_inputs(tasks: Mapping[str, TaskRows]) -> None:
    """Refuses tasks whose rows cannot stand in one batch."""
    found: dict[str, Any] = {
        name: {key: value.shape[1:] for key, value in rows.x.items()}
        | {"y": None if rows.y is None else rows.y.shape[1:]}
        for name, rows in tasks.items()
    }
    first = next(iter(found.values()))
    if any(shapes != first for shapes in found.values()):
        raise ValueError(
            "`datasets` should have the same inputs and shapes for all tasks, to stand in one "
            f"batch. Received: {found}"
        )
