"""Targets that are classes: those of models with a head."""

from __future__ import annotations

import abc

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.targets import (
    IGNORED,
    Inputs,
    Loss,
    Targets,
    ignored_by,
    mask_of,
    takes_labels,
)
from keras_mpt.heads.linear_head import LinearHead
from keras_mpt.types import TargetData, Tensor


class Labels(Targets):
    """Numbers of classes, from 0 on, which a row's own task must have.

    Args:
        head: the head that has the classes.
    """

    def __init__(self, head: LinearHead) -> None:
        self.head = head

    def check(self, inputs: ModelInputs, x: Inputs, y: TargetData, loss: Loss) -> None:
        """Refuses labels that a row's task does not have."""
        if not takes_labels(loss):
            return
        labels = to_numpy(y)
        if labels.dtype.kind not in "iufb":
            raise ValueError(
                "`y` should hold the classes' numbers, from 0 on. Received: y of dtype "
                f"{labels.dtype}, such as {labels.ravel()[:1].tolist()}"
            )
        labels = labels.astype("int32") if labels.dtype.kind == "b" else labels
        labels, counted = self.that_count(inputs, x, labels)
        limits = self.head.classes_of_rows(x.get("task_ids"), len(labels))
        is_wrong = (labels < 0) | (labels >= limits[:, None]) | (labels != np.floor(labels))
        counted = counted & (labels != ignored_by(loss))
        wrong = np.argwhere(is_wrong & counted)
        if len(wrong):
            row = int(wrong[0, 0])
            raise ValueError(
                f"`y` should hold labels in [0, {limits[row]}), the classes"
                f"{_of_task(inputs, x, row, len(labels))}. Received: label "
                f"{labels[tuple(wrong[0])]} in row {row}, and {len(wrong)} wrong labels in all"
            )

    @abc.abstractmethod
    def that_count(
        self, inputs: ModelInputs, x: Inputs, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels as (B, N), after a check of their shape, and which of them the loss counts."""


class RowLabels(Labels):
    """A class per row, (B,)."""

    def that_count(
        self, inputs: ModelInputs, x: Inputs, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every row's."""
        rows = len(x[inputs.splice.token_inputs[0].name])
        if labels.shape not in ((rows,), (rows, 1)):
            raise ValueError(
                f"`y` should have one label per row: {rows} of them. Received: y of shape "
                f"{labels.shape}"
            )
        return labels.reshape(-1, 1), np.full((rows, 1), True)

    def token_mask(self, inputs: ModelInputs, x: Inputs) -> None:
        """`None`."""
        return None


class TokenLabels(Labels):
    """A class per token, (B, S); -100 and padding count for nothing."""

    several_per_row = True
    ignored = IGNORED

    def that_count(
        self, inputs: ModelInputs, x: Inputs, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Those of tokens, but for the ignored ones."""
        shape = tuple(x[inputs.splice.token_inputs[0].name].shape)
        if labels.shape != shape:
            raise ValueError(
                f"`y` should have one label per token: shape {shape}. Received: y of shape "
                f"{labels.shape}"
            )
        counted = labels != IGNORED
        mask = self.token_mask(inputs, x)
        return labels, counted if mask is None else counted & (to_numpy(mask) != 0)

    def token_mask(self, inputs: ModelInputs, x: Inputs) -> Tensor | None:
        """The mask of the text whose tokens are classified."""
        return mask_of(inputs, x, 0)


def _of_task(inputs: ModelInputs, x: Inputs, row: int, rows: int) -> str:
    if not inputs.has_tasks:
        return ""
    task_ids = np.broadcast_to(x["task_ids"], rows)
    return f" of task {inputs.task_names[int(task_ids[row])]!r}"
