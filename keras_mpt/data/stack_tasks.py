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
        datasets: dict of task name to data, as `TaskMix` takes them; of any of the model's tasks,
            in any order. The names are those of the model's config.

    Returns:
        `(x, y)`: `x` a dict of arrays (N_0 + … + N_{T−1}, …) with `task_ids`, each row's name, and
        `text` where `x` was strings; `y` an array of as many rows. `(x,)` where there are no
        targets, `(x, y, sample_weight)` where there are weights.

    Raises:
        ValueError: no task, a task without rows, or with other inputs than the rest.

    Example:
        ```python
        datasets = {"tone": (["fine", "awful"], [1, 0]), "topic": (["goals"], [0])}
        x, y = keras_mpt.stack_tasks(datasets)
        assert x["text"].tolist() == ["fine", "awful", "goals"]
        assert x["task_ids"].tolist() == ["tone", "tone", "topic"]
        assert y.tolist() == [1, 0, 0]
        ```
    """
    tasks = task_rows(datasets)
    x = {key: np.concatenate([task.x[key] for task in tasks]) for key in tasks[0].x}
    # Names, not places: nothing else would tell that these tasks are not in the model's order.
    x["task_ids"] = np.repeat(list(datasets), [len(task) for task in tasks])
    targets = [
        np.concatenate([getattr(task, part) for task in tasks])
        for part in ("y", "sample_weight")
        if getattr(tasks[0], part) is not None
    ]
    return (x, *targets)
