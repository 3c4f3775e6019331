"""The loss and the metrics of each task, beside those of all rows."""

from __future__ import annotations

import abc
import collections
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mpt._keras import Monitored, get_keras_mask, with_direction
from keras_mpt.fitting.objective import Asked, Objective, metric_function, metric_name
from keras_mpt.fitting.own_columns import (
    Part,
    check_each_has_one,
    current_rows,
    is_row_of,
    own_columns,
    values_of,
    weight_per_target,
)
from keras_mpt.fitting.step_data import StepData
from keras_mpt.types import Tensor

# With more tasks than this a log line serves nobody, and every metric costs an update a step.
MAX_REPORTED_TASKS = 32


class TaskReport:
    """The compiled loss and metrics once more per task, fed with that task's rows.

    What it reports of a task is what `evaluate` on the task's rows alone would report, in one
    batch: a mean over several is one over all their values.

    Args:
        names: list of T strings.
        objective: what the model is compiled for; `None` for no report.
    """

    def __init__(self, names: Sequence[str], objective: Objective | None) -> None:
        # With many tasks, those alone that were asked for by name: 10,000 tasks' rows are not to be
        # found for nobody.
        is_short = len(names) <= MAX_REPORTED_TASKS
        measures: list[_Measure] = []
        if objective is not None and names and is_short and objective.has_loss:
            measures.append(_LossMeasure(range(len(names)), objective))
        known: dict[int, set[str]] = collections.defaultdict(lambda: {"loss"})
        for asked in objective.asked if objective is not None and names else ():
            tasks = range(len(names)) if asked.task is None else [asked.task]
            if asked.task is None and not is_short:
                continue
            name = metric_name(asked.metric)
            name = f"weighted_{name}" if name in known[tasks[0]] else name
            assert objective is not None
            measures.append(_metric_measure(asked, name, tasks, objective))
            for k in tasks:
                known[k].add(name)
        self._reports: list[tuple[_Measure, dict[int, RowsMetric]]] = [
            (m, {k: RowsMetric(m.make(), f"{names[k]}_{m.name}", m.like) for k in m.tasks})
            for m in measures
        ]
        self._tasks = sorted({k for measure in measures for k in measure.tasks})

    @property
    def metrics(self) -> list[RowsMetric]:
        """All tasks' metrics, in the tasks' order."""
        return [of[k] for k in self._tasks for _, of in self._reports if k in of]

    def by_task(self, logs: Mapping[str, float]) -> dict[int, dict[str, float]]:
        """Each task's own of a model's logs, by the names that they have for all rows.

        Args:
            logs: mapping of name to number.
        """
        found: dict[int, dict[str, float]] = {}
        for measure, reports in self._reports:
            for k, report in reports.items():
                if report.name in logs:
                    found.setdefault(k, {})[measure.name] = logs[report.name]
        return dict(sorted(found.items()))

    def update(self, task_ids: Tensor, data: StepData) -> None:
        """Feeds each task's metrics with its rows.

        Args:
            task_ids: integer tensor (B,).
            data: the batch's targets and outputs.
        """
        rows = {k: ops.cast(ops.equal(task_ids, k), "float32") for k in self._tasks}
        for measure, reports in self._reports:
            batch = measure.batch(data)
            if batch is not None:
                for k, report in reports.items():
                    own, weight = batch.of(rows[k])
                    report.update_rows(own, rows[k], weight)


class RowsMetric(Monitored):
    """A metric of some rows of each batch: NaN, rather than 0, until there were any.

    Args:
        metric: the metric of those rows.
        name: string.
        like: a metric, its name or "loss": what is better the same way. Defaults to `"loss"`.
    """

    def __init__(self, metric: keras.Metric, name: str, like: Any = "loss") -> None:
        super().__init__(name)
        with_direction(self, like)
        self.metric = metric
        self.rows = self.add_variable(shape=(), initializer="zeros", name="rows")

    def update_rows(self, data: tuple[Any, ...], rows: Tensor, weight: Tensor) -> None:
        """Adds a batch.

        Args:
            data: what the metric is of: `(y, y_pred)`, or `(values,)`.
            rows: float tensor (B,). 1 for the rows that count, else 0.
            weight: float tensor (B,) or (B, S). How much they count.
        """
        self.rows.assign_add(ops.cast(ops.sum(rows), self.rows.dtype))
        if len(data) == 1 and len(weight.shape) > 1:  # Keras would weigh each row's mean.
            data, weight = (ops.ravel(data[0]),), ops.ravel(weight)
        self.metric.update_state(*data, sample_weight=weight)

    def result(self) -> Tensor:
        """The metric, or NaN where it had no rows."""
        result = self.metric.result()
        return ops.where(self.rows > 0, result, ops.cast(float("nan"), result.dtype))

    def reset_state(self) -> None:
        """Forgets all rows."""
        self.rows.assign(0)
        self.metric.reset_state()


class _Batch:
    """What a measure takes of a batch.

    Args:
        data: what its metric is of.
        weight: float tensor (B, …), or `None` for ones.
    """

    def __init__(self, data: tuple[Any, ...], weight: Tensor | None) -> None:
        self.data = data
        self.weight = weight

    def of(self, rows: Tensor) -> tuple[tuple[Any, ...], Tensor]:
        """The data and the weights of some rows.

        Args:
            rows: float tensor (B,), 1 for those rows.
        """
        if self.weight is None:
            return self.data, rows
        return self.data, weight_per_target(rows, self.weight) * self.weight


class _Sum(_Batch):
    """The sum of values over rows, which counts as much as there are rows."""

    def of(self, rows: Tensor) -> tuple[tuple[Any, ...], Tensor]:
        """One sum, and the number of rows."""
        (values,) = self.data
        return (ops.sum(values * weight_per_target(rows, values)),), ops.sum(rows)


class _Measure(abc.ABC):
    """What is reported of some tasks.

    Args:
        name: string, such as "accuracy".
        tasks: the tasks.
        like: as in `RowsMetric`. Defaults to `"loss"`.
    """

    def __init__(self, name: str, tasks: Sequence[int], like: Any = "loss") -> None:
        self.name, self.tasks, self.like = name, tasks, like

    def make(self) -> Any:
        """A fresh metric for one task."""
        return keras.metrics.Mean()

    @abc.abstractmethod
    def batch(self, data: StepData) -> _Batch | None:
        """What it takes of a batch; `None` where that cannot be told apart by rows."""


class _LossMeasure(_Measure):
    """The loss, by its own way to make one number of many."""

    def __init__(self, tasks: Sequence[int], objective: Objective) -> None:
        super().__init__("loss", tasks)
        self._parts, self._reduction = objective.parts, objective.reduction

    def batch(self, data: StepData) -> _Batch | None:
        """Values, and what Keras would divide their sum by."""
        values = data.losses
        if values is None:  # In float32, as a `keras.Loss` has it.
            y, y_pred = ops.cast(data.y, "float32"), ops.cast(data.y_pred, "float32")
            values = values_of(self._parts, y, y_pred)
        check_each_has_one(values, data.loss_weight)
        if len(values.shape) == 0:
            return None
        mask, weight = get_keras_mask(values), data.loss_weight
        if weight is not None:
            weight = weight_per_target(weight, values)
        count = None if mask is None else ops.cast(mask, values.dtype)
        if self._reduction == "mean_with_sample_weight":
            return _Batch((values,), _product(weight, count))
        values = _product(values, weight)
        if self._reduction == "sum":
            return _Sum((_product(values, count),), None)
        return _Batch((values,), count)


class _MeanMeasure(_Measure):
    """A metric that is the mean of a function, which is computed once for all tasks."""

    def __init__(
        self,
        name: str,
        tasks: Sequence[int],
        like: Any,
        parts: Sequence[Part],
        weighted: bool,
    ) -> None:
        super().__init__(name, tasks, like)
        self._parts, self._weighted = parts, weighted

    def batch(self, data: StepData) -> _Batch | None:
        """Values, and the sample weights where these count."""
        data = data.of_metrics
        values = values_of(self._parts, data.y, data.y_pred)
        weight = data.sample_weight if self._weighted else None
        check_each_has_one(values, weight, "weighted_metrics")
        if len(values.shape) == 0:
            return None
        return _Batch((values,), None if weight is None else ops.cast(weight, "float32"))


class _OtherMeasure(_Measure):
    """Any other metric, on rows of one task or of tasks with the same columns."""

    def __init__(
        self,
        name: str,
        tasks: Sequence[int],
        metric: keras.Metric,
        weighted: bool,
        classes: int | None,
    ) -> None:
        super().__init__(name, tasks, metric)
        self._metric, self._weighted, self._classes = metric, weighted, classes

    def make(self) -> Any:
        """A fresh one of the metric's class."""
        return type(self._metric).from_config(dict(self._metric.get_config()))

    def batch(self, data: StepData) -> _Batch | None:
        """Targets and outputs, in those columns."""
        data = data.of_metrics
        y, y_pred, sample_weight = data.y, data.y_pred, data.sample_weight
        if self._classes is not None:
            is_own = is_row_of(self.tasks, current_rows())
            y, y_pred = own_columns(y, y_pred, is_own, self._classes)
        weight = None
        if self._weighted and sample_weight is not None:
            weight = ops.cast(sample_weight, "float32")
        if 1 < len(y.shape) < len(y_pred.shape):  # Keras would lay those of rows along tokens.
            given = ops.ones(ops.shape(y)[:1]) if weight is None else weight
            weight = weight_per_target(given, y)
        return _Batch((y, y_pred), weight)


def _metric_measure(
    asked: Asked, name: str, tasks: Sequence[int], objective: Objective
) -> _Measure:
    function = metric_function(asked.metric)
    if function is not None:
        parts = objective.metric_parts(function, tasks)
        return _MeanMeasure(name, tasks, asked.metric, parts, asked.weighted)
    classes = objective.setting.of_tasks[tasks[0]] if objective.setting.differ else None
    has_own = classes is not None and asked.task is not None
    columns = classes if has_own else None
    return _OtherMeasure(name, tasks, asked.metric, asked.weighted, columns)


def _product(values: Tensor | None, weight: Tensor | None) -> Tensor | None:
    if values is None or weight is None:
        return weight if values is None else values
    return values * weight
