"""One task's rows, and what all tasks of a mix must have in common."""

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


def as_rows(name: str, k: int, x: Any, y: Any = None) -> TaskRows:
    """A task's data as rows.

    Args:
        name: string. The task.
        k: int. Its number.
        x: dict of arrays (N, …), list of N strings, or pair of such lists.
        y: array or list (N, …). Defaults to `None`.

    Returns:
        A `TaskRows`.

    Raises:
        ValueError: no rows, or unequal numbers of them.
    """
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


def check_same_inputs(tasks: Mapping[str, TaskRows]) -> None:
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
