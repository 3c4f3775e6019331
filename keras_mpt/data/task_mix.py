"""Several tasks' data in one stream of mixed batches."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt.prompts.prompt_embedding import check_sizes


class TaskMix(keras.utils.PyDataset):
    """Batches that mix several tasks' rows, with their `task_ids`.

    Mixing, shuffling and repeating are Grain's (`pip install keras-mpt[data]`), so the same seed
    gives the same batches on every backend. An epoch is `steps` batches; a task shorter than its
    share starts over in a new order, and the next epoch goes on where this one stopped.

    Args:
        datasets: dict of task name to `(x, y)`, in the order of the model's tasks. `x` is a dict of
            arrays (N, …), or a list of N strings, or a pair of such lists; `y` an array (N, …), or
            `None` for all tasks where a language model's preprocessor makes the targets of text.
        batch_size: int. B. Defaults to `32`.
        weights: how often each task is drawn: `"uniform"`, `"proportional"` (to its rows), or a
            list of positive numbers. Defaults to `"uniform"`.
        steps: int. Batches in an epoch. `None` is all tasks' rows divided by B, rounded up.
            Defaults to `None`.
        shuffle: bool. Whether to shuffle each task's rows. Defaults to `True`.
        seed: int. Defaults to `0`.
        **kwargs: those of `keras.utils.PyDataset`.

    Yields:
        `(x, y)`: `x` a dict of arrays (B, …) with `task_ids` (B,) int32, and `text` where `x` was
        strings; `y` an array (B, …). `(x,)` where there are no targets.

    Raises:
        ValueError: a dataset that is empty, has other inputs than the rest or more or fewer targets
            than rows, or weights that do not fit.

    Example:
        ```python
        datasets = {
            "tone": (["fine", "awful", "great"], np.array([1, 0, 1])),
            "topic": (["goals", "votes"], np.array([0, 1])),
        }
        mix = keras_mpt.TaskMix(datasets, batch_size=4)
        x, y = mix[0]
        assert x["text"].shape == x["task_ids"].shape == y.shape == (4,)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3.2, for why tasks share batches.
    """

    def __init__(
        self,
        datasets: Mapping[str, tuple[Any, Any]],
        batch_size: int = 32,
        weights: str | Sequence[float] = "uniform",
        steps: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_sizes({"batch_size": batch_size, "steps": 1 if steps is None else steps})
        grain = _grain()
        tasks = [_as_rows(name, k, *data) for k, (name, data) in enumerate(datasets.items())]
        if not tasks:
            raise ValueError("`datasets` should hold at least one task. Received: datasets={}")
        _check_same_inputs(dict(zip(datasets, tasks, strict=True)))
        sizes = [len(task) for task in tasks]
        self.task_names = list(datasets)
        self.steps = steps or -(-sum(sizes) // batch_size)
        self.epoch = 0
        self._within_epoch = False
        streams = []
        for k, task in enumerate(tasks):
            stream = grain.MapDataset.source(task).seed(seed + k)
            streams.append((stream.shuffle() if shuffle else stream).repeat())
        mixed = grain.MapDataset.mix(streams, _checked_weights(weights, sizes))
        self._batches = mixed.batch(batch_size)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return tuple(self._batches[self.epoch * self.steps + index])

    def on_epoch_begin(self) -> None:
        """Notes that an epoch began: Keras also calls `on_epoch_end` before the first one."""
        self._within_epoch = True

    def on_epoch_end(self) -> None:
        """Moves on: the next epoch holds the next rows."""
        self.epoch += self._within_epoch
        self._within_epoch = False


class _Rows:
    """One task's rows, for Grain to draw from."""

    def __init__(self, x: dict[str, np.ndarray], y: np.ndarray | None) -> None:
        self.x = x
        self.y = y

    def __len__(self) -> int:
        return len(self.x["task_ids"])

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        x = {name: value[row] for name, value in self.x.items()}
        return (x,) if self.y is None else (x, self.y[row])


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError("`TaskMix` needs Grain: `pip install keras-mpt[data]`.") from error
    return grain


def _as_rows(name: str, k: int, x: Any, y: Any = None) -> _Rows:
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
    return _Rows(arrays, y)


def _check_same_inputs(tasks: dict[str, _Rows]) -> None:
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


def _checked_weights(weights: Any, sizes: list[int]) -> list[float]:
    if isinstance(weights, str):
        values = {"uniform": [1] * len(sizes), "proportional": sizes}.get(weights, [])
    else:
        values = list(weights) if isinstance(weights, (Sequence, np.ndarray)) else []
    is_positive = [isinstance(w, numbers.Real) and 0 < w < math.inf for w in values]
    if len(values) != len(sizes) or not all(is_positive):
        raise ValueError(
            f"`weights` should be 'uniform', 'proportional' or {len(sizes)} positive numbers. "
            f"Received: weights={weights!r}"
        )
    return [float(w) for w in values]
