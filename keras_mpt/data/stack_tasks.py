"""Several tasks' rows one under another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mpt.data.task_rows import task_rows


def stack_tasks(datasets: Mapping[str, tuple[Any, ...]]) -> tuple[Any, ...]:
    """All rows of all tasks, each once, with their `task_ids`: what to validate on.

    As `validation_data` of a `fit`, or for `evaluate` and `predict`. A `TaskMix` is for training:
    its next epoch holds the next rows, and of a small task the same rows several times.

    Args:
        datasets: dict of task name to `(x, y)`, in the order of the model's tasks, as `TaskMix`
            takes them.

    Returns:
        `(x, y)`: `x` a dict of arrays (N_0 + … + N_{T−1}, …) with `task_ids` int32, and `text`
        where `x` was strings; `y` an array of as many rows. `(x,)` where there are no targets.

    Raises:
        ValueError: no task, a task without rows, or with other inputs than the rest.

    Example:
        ```python
        datasets = {"tone": (["fine", "awful"], [1, 0]), "topic": (["goals"], [0])}
        x, y = keras_mpt.stack_tasks(datasets)
        assert x["text"].tolist() == ["fine", "awful", "goals"]
        assert x["task_ids"].tolist() == [0, 0, 1]
        assert y.tolist() == [1, 0, 0]
        ```
    """
    tasks = task_rows(datasets)
    x = {key: np.concatenate([task.x[key] for task in tasks]) for key in tasks[0].x}
    targets = [task.y for task in tasks if task.y is not None]
    return (x, np.concatenate(targets)) if targets else (x,)
