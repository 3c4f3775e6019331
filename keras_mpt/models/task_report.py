"""The loss and the metrics of each task, beside those of all rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

# With more tasks than this a log line serves nobody, and every metric costs an update a step.
MAX_REPORTED_TASKS = 32


class TaskReport:
    """One copy of the compiled loss and of each metric per task, fed with that task's rows.

    Args:
        names: list of T strings.
        compiled: dict of `compile`'s arguments; its `loss`, `metrics` and `weighted_metrics` count.
    """

    def __init__(self, names: Sequence[str], compiled: dict[str, Any]) -> None:
        self.tasks: list[list[RowsMetric]] = []
        if len(names) > MAX_REPORTED_TASKS:
            return
        loss = compiled.get("loss")
        if loss is None or isinstance(loss, (list, dict)):
            return
        metrics = []
        for argument in ("metrics", "weighted_metrics"):
            given = compiled.get(argument) or []
            metrics += [given] if isinstance(given, (str, keras.Metric)) else list(given)
        for name in names:
            own = [_rows_metric(name, metric, loss) for metric in metrics]
            self.tasks.append([_rows_loss(name, loss), *own])

    @property
    def metrics(self) -> list[RowsMetric]:
        """All tasks' metrics, in the tasks' order."""
        return [metric for task in self.tasks for metric in task]

    def update(self, task_ids: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Feeds each task's metrics with its rows.

        Args:
            task_ids: integer tensor (B,).
            y: targets, (B, …).
            y_pred: outputs, (B, …).
            sample_weight: float tensor (B,) or (B, S), or `None`. Defaults to `None`.
        """
        for k, task in enumerate(self.tasks):
            weight = ops.cast(ops.equal(task_ids, k), "float32")
            seen = ops.sum(weight)
            if sample_weight is not None:
                given = ops.cast(sample_weight, "float32")
                weight = ops.reshape(weight, (-1, *[1] * (len(given.shape) - 1))) * given
            for metric in task:
                metric.update_rows(y, y_pred, weight, seen)


class RowsMetric(keras.metrics.Metric):
    """A metric of some rows of each batch: NaN, rather than 0, until there were any.

    Args:
        metric: the metric of those rows.
        name: string.
    """

    def __init__(self, metric: Any, name: str) -> None:
        super().__init__(name=name)
        self.metric = metric
        self.rows = self.add_variable(shape=(), initializer="zeros", name="rows")

    def update_rows(self, y: Any, y_pred: Any, weight: Any, seen: Any) -> None:
        """Adds a batch, of which rows with weight 0 do not count."""
        self.rows.assign_add(ops.cast(seen, self.rows.dtype))
        self.metric.update_state(y, y_pred, sample_weight=weight)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Adds a batch, all of whose rows count."""
        self.rows.assign_add(ops.cast(ops.shape(y_true)[0], self.rows.dtype))
        self.metric.update_state(y_true, y_pred, sample_weight=sample_weight)

    def result(self) -> Any:
        """The metric, or NaN where it had no rows."""
        result = self.metric.result()
        return ops.where(self.rows > 0, result, ops.cast(float("nan"), result.dtype))


def _rows_loss(task: str, loss: Any) -> RowsMetric:
    """The mean of each row's own loss: the metric's mean takes the place of a reduction."""
    loss = keras.losses.get(loss)
    if isinstance(loss, keras.Loss):
        loss = loss.__class__.from_config({**loss.get_config(), "reduction": None})
    return RowsMetric(keras.metrics.MeanMetricWrapper(loss, name="loss"), f"{task}_loss")


def _rows_metric(task: str, metric: Any, loss: Any) -> RowsMetric:
    """A fresh metric of the same kind."""
    if metric in ("accuracy", "acc"):
        own = _accuracy(keras.losses.get(loss))(name=metric)
    else:
        own = keras.metrics.get(metric)
        if not isinstance(own, keras.Metric):
            own = keras.metrics.MeanMetricWrapper(own, name=own.__name__)
        own = own.__class__.from_config(own.get_config())
    return RowsMetric(own, f"{task}_{own.name}")


def _accuracy(loss: Any) -> Any:
    """What Keras takes "accuracy" to mean under this loss."""
    name = getattr(loss, "name", None) or loss.__name__
    if "sparse" in name:
        return keras.metrics.SparseCategoricalAccuracy
    return keras.metrics.BinaryAccuracy if "binary" in name else keras.metrics.CategoricalAccuracy
