"""Integer labels of tasks with label words, checked."""

from __future__ import annotations

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.fitting.label_words import LabelWords
from keras_mpt.types import TargetData


def checked_labels(
    words: LabelWords, tasks: np.ndarray, y: TargetData, none: int | None = None
) -> np.ndarray:
    """Labels as integers, (B,).

    Args:
        words: the tasks' words.
        tasks: int array (B,). Each row's task, which has words.
        y: labels, (B,) or (B, 1).
        none: int. The label of a row that has none. Defaults to `None`: all have one.

    Raises:
        ValueError: labels of another shape or dtype, or of classes that a row's task has no word
            for.
    """
    labels, rows = to_numpy(y), len(tasks)
    if labels.dtype.kind not in "iufb":
        raise ValueError(
            "`y` should hold the classes' numbers, from 0 on. Received: y of dtype "
            f"{labels.dtype}, such as {labels.ravel()[:1].tolist()}"
        )
    if labels.shape not in ((rows,), (rows, 1)):
        raise ValueError(
            f"`y` should have one label per row: {rows} of them. Received: y of shape "
            f"{labels.shape}"
        )
    labels = labels.reshape(rows)
    limits = words.num_classes[tasks]
    is_wrong = (labels < 0) | (labels >= limits) | (labels != np.floor(labels))
    wrong = np.flatnonzero(is_wrong & (labels != none))
    if wrong.size:
        row = int(wrong[0])
        names = words.task_names
        of_task = "" if names is None else f" of task {names[int(tasks[row])]!r}"
        raise ValueError(
            f"`y` should hold labels in [0, {limits[row]}), the classes{of_task}. Received: label "
            f"{labels[row]} in row {row}, and {wrong.size} wrong labels in all"
        )
    return labels.astype("int32")
