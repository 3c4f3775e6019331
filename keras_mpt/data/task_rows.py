"""Each task's rows, and what all of them must have in common."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mpt.data.columns import as_array, as_columns, as_list
from keras_mpt.data.texts import (
    NO_LABEL,
    PROMPTS,
    RESPONSES,
    TEXT_NAMES,
    is_pair_of_columns,
    text_array,
    text_rows,
)


class TaskRows:
    """One task's rows, for Grain to draw from.

    Args:
        x: dict of arrays (N, …), `task_ids` among them.
        y: array (N, …) or `None`.
        sample_weight: array (N, …) or `None`, as without `y`.
    """

    def __init__(
        self, x: dict[str, np.ndarray], y: np.ndarray | None, sample_weight: np.ndarray | None
    ) -> None:
        self.x = x
        self.y = y
        self.sample_weight = sample_weight

    def __len__(self) -> int:
        return len(self.x["task_ids"])

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        x = {name: value[row] for name, value in self.x.items()}
        targets = (self.y, self.sample_weight)
        return (x, *(values[row] for values in targets if values is not None))

    def checksum(self) -> int:
        """A number that other data would hardly give: CRC-32 of names, shapes and values.

        Returns:
            int.
        """
        targets = {"y": self.y, "sample_weight": self.sample_weight}
        arrays = self.x | {name: v for name, v in targets.items() if v is not None}
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
        datasets: dict of task name to `(x, y)`, `(x,)` or `(x, y, sample_weight)`; `x` is a dict of
            arrays (N, …), or text as `text_rows` takes it, `y` an array or column (N, …) or `None`,
            `sample_weight` likewise. Where one task has weights, those of others are 1.

    Returns:
        A list of `TaskRows`, in the same order.

    Raises:
        ValueError: no task, a task without rows or with another number of targets, or with other
            inputs than the rest.
    """
    if not isinstance(datasets, Mapping):
        raise ValueError(
            "`datasets` should be a dict of task name to (x, y). Received: datasets of type "
            f"{type(datasets).__name__}"
        )
    tasks = [_as_rows(name, k, data) for k, (name, data) in enumerate(datasets.items())]
    if not tasks:
        raise ValueError("`datasets` should hold at least one task. Received: datasets={}")
    _fill_answers(tasks)
    weights = [task.sample_weight for task in tasks if task.sample_weight is not None]
    for task in tasks:
        if weights and task.y is not None and task.sample_weight is None:
            task.sample_weight = np.ones((len(task), *weights[0].shape[1:]), weights[0].dtype)
    _widen_texts(tasks)
    _check_same_inputs(dict(zip(datasets, tasks, strict=True)))
    return tasks


def _fill_answers(tasks: Sequence[TaskRows]) -> None:
    """Where prompts are answered by responses in some tasks and by labels in others: both columns.

    A row with a label has an empty response, and one with a response the label `NO_LABEL`.
    """
    answered = [RESPONSES in task.x for task in tasks]
    if not any(answered) or not all(PROMPTS in task.x for task in tasks):
        return
    has_targets = any(t.y is not None or t.sample_weight is not None for t in tasks)
    for task, is_answered in zip(tasks, answered, strict=True):
        if not is_answered and task.y is not None:
            task.x[RESPONSES] = np.full(len(task), "")
        if is_answered and task.y is None and has_targets:
            task.y = np.full(len(task), NO_LABEL)


def _widen_texts(tasks: Sequence[TaskRows]) -> None:
    """Gives single texts an empty second one, where another task has pairs."""
    texts = [task.x.get("text") for task in tasks]
    if {None if text is None else text.ndim for text in texts} == {1, 2}:
        for task in tasks:
            text = task.x["text"]
            if text.ndim == 1:
                task.x["text"] = np.stack([text, np.zeros_like(text)], axis=1)


def _as_rows(name: str, k: int, data: Any) -> TaskRows:
    """One task's data, or an error where they have no rows, or unequal numbers of them."""
    is_packed = isinstance(data, (tuple, list)) and 1 <= len(data) <= 3
    if not is_packed or isinstance(data[0], str):
        raise ValueError(
            "`datasets` should have (x, y), (x,) or (x, y, sample_weight) for each task. Received: "
            f"task {name!r} with data of type {type(data).__name__}"
        )
    given, *rest = data
    y, sample_weight = (as_array(values) for values in [*rest, None, None][:2])
    y, sample_weight = (None if v is None else np.asarray(v) for v in (y, sample_weight))
    x = as_columns(given)
    x = x if isinstance(x, dict) else {"text": x}
    columns = {key: _columns(key, value) for key, value in x.items()}
    lengths = {
        name: _length(column)
        for key, parts in columns.items()
        for name, column in zip((key, f"second {key}"), parts, strict=False)
    }
    rows = next(iter(lengths.values()), 0)
    targets, weights = (rows if v is None else _length(v) for v in (y, sample_weight))
    if rows == 0 or {*lengths.values(), targets, weights} != {rows}:
        weighted = "" if sample_weight is None else f", {weights} weights"
        raise ValueError(
            f"`datasets` should have rows, and one target per row, for each task. Received: task "
            f"{name!r} with {targets} targets{weighted} and rows {lengths}"
        )
    if y is None and sample_weight is not None and RESPONSES not in columns:
        raise ValueError(
            f"`datasets` should have targets where there are weights. Received: task {name!r} with "
            "y=None"
        )
    arrays = {key: _as_array(name, key, parts, rows) for key, parts in columns.items()}
    arrays["task_ids"] = np.full(rows, k, "int32")
    return TaskRows(arrays, y, sample_weight)


def _columns(key: str, values: Any) -> tuple[Any, ...]:
    """An input's values, or a pair's first and second texts."""
    if key not in TEXT_NAMES:
        return (np.asarray(as_array(values)),)
    parts = values if is_pair_of_columns(values) else (values,)
    # A tuple stays one: two strings in it are two rows, or one pair.
    return tuple(part if isinstance(part, (str, tuple)) else as_list(part) for part in parts)


def _as_array(task: str, key: str, parts: tuple[Any, ...], rows: int) -> np.ndarray:
    if key not in TEXT_NAMES:
        array: np.ndarray = parts[0]
        return array
    try:
        return text_array(text_rows(parts if len(parts) == 2 else parts[0], rows))
    except ValueError as error:
        raise ValueError(f"In the data of task {task!r}: {error}") from None


def _length(values: Any) -> int:
    """How many rows; of what has none, such as a number, 0."""
    if isinstance(values, (list, tuple)):
        return len(values)
    return values.shape[0] if isinstance(values, np.ndarray) and values.ndim else 0


def _check_same_inputs(tasks: Mapping[str, TaskRows]) -> None:
    """Refuses tasks whose rows cannot stand in one batch."""
    found: dict[str, Any] = {
        name: {key: value.shape[1:] for key, value in rows.x.items()}
        | {"y": None if rows.y is None else rows.y.shape[1:]}
        | ({} if rows.sample_weight is None else {"sample_weight": rows.sample_weight.shape[1:]})
        for name, rows in tasks.items()
    }
    first = next(iter(found.values()))
    if any(shapes != first for shapes in found.values()):
        raise ValueError(
            "`datasets` should have the same inputs and shapes for all tasks, to stand in one "
            f"batch. Received: {found}"
        )
