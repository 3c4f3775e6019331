"""What a training reports of its terms beside the task's loss: of all rows and of each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mpt.fitting.task_report import MAX_REPORTED_TASKS, RowsMetric
from keras_mpt.types import Tensor


class TermReport:
    """The means of a training's terms, under their names and under "<task>_<term>".

    Args:
        terms: list of strings, the terms' names.
        tasks: list of T strings, the tasks' names. More than 32 are not reported one by one.
    """

    def __init__(self, terms: Sequence[str], tasks: Sequence[str]) -> None:
        named = list(tasks) if len(tasks) <= MAX_REPORTED_TASKS else []
        self.terms = {
            term: [
                RowsMetric(keras.metrics.Mean(), name)
                for name in (term, *(f"{task}_{term}" for task in named))
            ]
            for term in terms
        }

    @property
    def metrics(self) -> list[RowsMetric]:
        """All metrics: a term's own, then its tasks'."""
        return [metric for metrics in self.terms.values() for metric in metrics]

    def update(self, term: str, values: Tensor, weights: Tensor, task_ids: Tensor) -> None:
        """Adds a batch.

        Args:
            term: string.
            values: float tensor (B,) or (B, N).
            weights: float tensor of that shape. How much each value counts.
            task_ids: integer tensor (B,).
        """
        for k, metric in enumerate(self.terms[term], start=-1):
            is_own = ops.equal(task_ids, k) if k >= 0 else ops.ones_like(task_ids)
            rows = ops.cast(is_own, "float32")
            own = ops.expand_dims(rows, -1) if len(values.shape) == 2 else rows
            metric.update_rows((values,), rows, weights * own)

    def without(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Logs without these terms."""
        own = {metric.name for metric in self.metrics}
        return {name: value for name, value in logs.items() if name not in own}
