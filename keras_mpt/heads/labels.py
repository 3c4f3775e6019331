"""Targets that are classes: those of models with a head."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.fitting.losses import Kind
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.objective import Goal, Objective
from keras_mpt.fitting.targets import IGNORED, Inputs, Targets, mask_of
from keras_mpt.heads.linear_head import LinearHead
from keras_mpt.types import TargetData, Tensor

# What a target may be, and in words.
_LIMITS = {
    Kind.DISTRIBUTIONS: (0.0, np.inf),
    Kind.CLASSES: (0.0, np.inf),
    Kind.BINARY: (0.0, 1.0),
}
_NUMBERS = {
    Kind.DISTRIBUTIONS: "probabilities",
    Kind.CLASSES: "probabilities",
    Kind.BINARY: "numbers in [0, 1]",
}


class Labels(Targets):
    """What a row's own task has outputs for: numbers of classes from 0 on, or numbers.

    Args:
        head: the head that has the classes.
    """

    # What has a label of its own.
    each: ClassVar[str]

    def __init__(self, head: LinearHead) -> None:
        self.head = head

    @property
    def num_classes(self) -> int | Sequence[int] | None:
        """The number of classes, or each task's."""
        return self.head.num_classes

    @abc.abstractmethod
    def shape(self, inputs: ModelInputs, x: Inputs) -> tuple[int, ...]:
        """That of labels: (B,) or (B, S)."""

    def check(self, inputs: ModelInputs, x: Inputs, y: TargetData, objective: Objective) -> None:
        """Refuses targets that a row's task does not have outputs for."""
        shape = self.shape(inputs, x)
        for goal, rows in objective.by_sort(x.get("task_ids"), shape[0]):
            if goal.kind is Kind.UNKNOWN:
                continue
            values = to_numpy(y)
            is_dense = values.ndim > len(shape) and values.shape[-1] > 1
            if goal.kind is Kind.LABELS or (goal.kind is Kind.CLASSES and not is_dense):
                self._check_labels(inputs, x, values, goal, rows)
            else:
                self._check_numbers(inputs, x, values, goal, rows)

    def _check_labels(
        self, inputs: ModelInputs, x: Inputs, labels: np.ndarray, goal: Goal, rows: np.ndarray
    ) -> None:
        if labels.dtype.kind not in "iufb":
            raise ValueError(
                "`y` should hold the classes' numbers, from 0 on. Received: y of dtype "
                f"{labels.dtype}, such as {labels.ravel()[:1].tolist()}"
            )
        labels = labels.astype("int32") if labels.dtype.kind == "b" else labels
        shape = self.shape(inputs, x)
        if labels.shape not in (shape, (*shape, 1)):
            count = f"{shape[0]} of them" if len(shape) == 1 else f"shape {shape}"
            raise ValueError(
                f"`y` should have one label per {self.each}: {count}. Received: y of shape "
                f"{labels.shape}"
            )
        labels = labels.reshape(shape[0], -1)[rows]
        limits = self.head.classes_of_rows(x.get("task_ids"), shape[0])
        limit = limits[rows][:, None]
        is_wrong = (labels < 0) | (labels >= limit) | (labels != np.floor(labels))
        counted = self._counted(inputs, x, labels, rows) & (labels != goal.ignored)
        wrong = np.argwhere(is_wrong & counted)
        if len(wrong):
            row = int(rows[wrong[0, 0]])
            raise ValueError(
                f"`y` should hold labels in [0, {limits[row]}), the classes"
                f"{_of_task(inputs, x, row, shape[0])}. Received: label "
                f"{labels[tuple(wrong[0])]} in row {row}, and {len(wrong)} wrong labels in all"
            )

    def _check_numbers(
        self, inputs: ModelInputs, x: Inputs, values: np.ndarray, goal: Goal, rows: np.ndarray
    ) -> None:
        """Numbers for each output of a row's task, and nothing for those that it has not."""
        shape, width = self.shape(inputs, x), self.head.max_classes
        of_one = [shape, (*shape, 1)] if goal.classes == 1 else []
        if values.dtype.kind not in "iufb" or values.shape not in [*of_one, (*shape, width)]:
            full = of_one[0] if of_one else (*shape, width)
            raise ValueError(
                f"`y` should have a number per output of {self.each}s under this loss: shape "
                f"{full}. Received: y of dtype {values.dtype} and shape {values.shape}"
            )
        values = values.reshape(*shape, -1)[rows].astype("float64")
        counted = self._counted(inputs, x, values[..., 0], rows)
        limits = self.head.classes_of_rows(x.get("task_ids"), shape[0])
        limit = limits[rows].reshape(-1, *[1] * len(shape))
        is_own = (np.arange(values.shape[-1]) < limit) | (values.shape[-1] == 1)
        least, most = _LIMITS.get(goal.kind, (-np.inf, np.inf))
        is_right = np.isfinite(values) & (values >= least) & (values <= most)
        wrong = np.argwhere(~np.where(is_own, is_right, values == 0) & counted[..., None])
        if len(wrong):
            row, column = int(rows[wrong[0, 0]]), int(wrong[0, -1])
            found = values[tuple(wrong[0])]
            wanted = _NUMBERS.get(goal.kind, "finite numbers")
            raise ValueError(
                f"`y` should hold {wanted} for the {limits[row]} classes"
                f"{_of_task(inputs, x, row, shape[0])}, and 0 for others. Received: {found} for "
                f"class {column} in row {row}, and {len(wrong)} wrong numbers in all"
            )

    def _counted(
        self, inputs: ModelInputs, x: Inputs, labels: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Which of some rows' targets count, (N, …)."""
        counted = np.full(labels.shape, True) if self.ignored is None else labels != self.ignored
        mask = self.token_mask(inputs, x)
        return counted if mask is None else counted & (to_numpy(mask)[rows] != 0)


class RowLabels(Labels):
    """A class per row, (B,)."""

    each = "row"

    def shape(self, inputs: ModelInputs, x: Inputs) -> tuple[int, ...]:
        """(B,)."""
        return (len(x[inputs.splice.token_inputs[0].name]),)

    def token_mask(self, inputs: ModelInputs, x: Inputs) -> None:
        """`None`."""
        return None


class TokenLabels(Labels):
    """A class per token, (B, S); -100 and padding count for nothing."""

    several_per_row = per_token = True
    ignored = IGNORED
    reduction = "mean_with_sample_weight"
    each = "token"

    def shape(self, inputs: ModelInputs, x: Inputs) -> tuple[int, ...]:
        """(B, S)."""
        return tuple(x[inputs.splice.token_inputs[0].name].shape)

    def token_mask(self, inputs: ModelInputs, x: Inputs) -> Tensor | None:
        """The mask of the text whose tokens are classified."""
        return mask_of(inputs, x, 0)


def _of_task(inputs: ModelInputs, x: Inputs, row: int, rows: int) -> str:
    if not inputs.has_tasks:
        return ""
    task_ids = np.broadcast_to(x["task_ids"], rows)
    return f" of task {inputs.task_names[int(task_ids[row])]!r}"
