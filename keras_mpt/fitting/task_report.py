"""The loss and the metrics of each task, beside those of all rows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_mpt._keras import mean_values
from keras_mpt.fitting.targets import Loss, weight_per_target
from keras_mpt.types import Tensor, Tensors

# With more tasks than this a log line serves nobody, and every metric costs an update a step.
MAX_REPORTED_TASKS = 32


class TaskReport:
    """The compiled loss and metrics once more per task, fed with that task's rows.

    What it reports of a task is what `evaluate` on the task's rows alone would report.

    Args:
        names: list of T strings.
        compiled: dict of `compile`'s arguments; its `loss`, `metrics` and `weighted_metrics` count.
    """

    def __init__(self, names: Sequence[str], compiled: dict[str, Any]) -> None:
        self._measures: list[_Measure] = []
        loss = compiled.get("loss")
        if len(names) <= MAX_REPORTED_TASKS and not isinstance(loss, (list, dict, type(None))):
            self._measures.append(_loss_measure(loss))
            for argument in ("metrics", "weighted_metrics"):
                for metric in keras.tree.flatten(compiled.get(argument) or []):
                    known = [measure.name for measure in self._measures]
                    weighted = argument == "weighted_metrics"
                    self._measures.append(_metric_measure(metric, weighted, known))
        # None where nothing is reported: 10,000 tasks' rows are not to be found for nobody.
        self.tasks = [
            [RowsMetric(measure.make(), f"{name}_{measure.name}") for measure in self._measures]
            for name in (names if self._measures else ())
        ]

    @property
    def metrics(self) -> list[RowsMetric]:
        """All tasks' metrics, in the tasks' order."""
        return [metric for task in self.tasks for metric in task]

    def update(
        self, task_ids: Tensor, y: Tensor, y_pred: Tensors, sample_weight: Tensor | None = None
    ) -> None:
        """Feeds each task's metrics with its rows.

        Args:
            task_ids: integer tensor (B,).
            y: targets, (B, …).
            y_pred: outputs, (B, …).
            sample_weight: float tensor (B,) or (B, S), or `None`. Defaults to `None`.
        """
        rows = [ops.cast(ops.equal(task_ids, k), "float32") for k in range(len(self.tasks))]
        weights = rows
        if sample_weight is not None:
            given = ops.cast(sample_weight, "float32")
            weights = [weight_per_target(r, given) * given for r in rows]
        for i, measure in enumerate(self._measures):
            data: tuple[Any, ...] = (y, y_pred)
            if measure.values is not None:
                data = (measure.values(y, y_pred, sample_weight),)
                if len(data[0].shape) == 0:  # One number for the batch cannot be told apart.
                    continue
            for k, task in enumerate(self.tasks):
                weight = weights[k] if measure.weighted else rows[k]
                has_several = len(weight.shape) < len(y.shape) < len(y_pred.shape)
                if measure.values is None and has_several:
                    weight = weight_per_target(weight, y)
                task[i].update_rows(data, rows[k], weight)


class RowsMetric(keras.metrics.Metric):
    """A metric of some rows of each batch: NaN, rather than 0, until there were any.

    Args:
        metric: the metric of those rows.
        name: string.
    """

    def __init__(self, metric: keras.Metric, name: str) -> None:
        super().__init__(name=name)
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
        self.metric.update_state(*data, sample_weight=weight)

    def result(self) -> Tensor:
        """The metric, or NaN where it had no rows."""
        result = self.metric.result()
        return ops.where(self.rows > 0, result, ops.cast(float("nan"), result.dtype))

    def reset_state(self) -> None:
        """Forgets all rows."""
        self.rows.assign(0)
        self.metric.reset_state()


@dataclasses.dataclass(frozen=True)
class _Measure:
    """What is reported of each task.

    Attributes:
        name: string, such as "accuracy".
        make: gives a fresh metric for one task.
        values: `(y, y_pred, sample_weight)` to a value per row or token, of which that metric is
            the mean; `None` where it takes `(y, y_pred)` itself.
        weighted: whether the metric's own weights are the sample weights.
    """

    name: str
    make: Callable[[], Any]
    values: Callable[[Any, Any, Any], Any] | None
    weighted: bool


def _loss_measure(loss: Loss) -> _Measure:
    per_row = _PerRow(loss)
    # Under this reduction Keras divides by the sum of the weights, else by the number of rows.
    if getattr(loss, "reduction", None) == "mean_with_sample_weight":
        return _Measure("loss", keras.metrics.Mean, lambda y, p, _: per_row(y, p), True)
    return _Measure("loss", keras.metrics.Mean, per_row, False)


def _metric_measure(metric: keras.Metric, weighted: bool, known: list[str]) -> _Measure:
    if metric in ("accuracy", "acc"):
        name, metric = metric, _accuracy
    else:
        given, metric = metric, keras.metrics.get(metric)
        name = given if isinstance(given, str) else getattr(metric, "name", None)
        name = name or metric.__name__
    name = f"weighted_{name}" if name in known else name
    values = mean_values(metric)
    if values is not None:  # These are computed once for all tasks, not once for each.
        return _Measure(name, keras.metrics.Mean, lambda y, p, _: values(y, p), weighted)
    if isinstance(metric, keras.Metric):
        config = metric.get_config()
        return _Measure(name, lambda: type(metric).from_config(dict(config)), None, weighted)
    return _Measure(name, keras.metrics.Mean, lambda y, p, _: metric(y, p), weighted)


class _PerRow(keras.Loss):
    """A loss or loss function without its reduction."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(name="loss", reduction=None)
        self.function: Any = _crossentropy
        if str(loss).lower() not in ("crossentropy", "ce"):
            self.function = keras.losses.get(loss)
            if isinstance(self.function, keras.Loss):
                self.function = self.function.call

    def call(self, y: Tensor, y_pred: Tensors) -> Tensor:
        """A loss per row or token."""
        if len(y.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
            y = ops.expand_dims(y, -1)
        return self.function(y, y_pred)


def _by_shapes(binary: Any, sparse: Any, categorical: Any, y: Tensor, y_pred: Tensors) -> Tensor:
    """As Keras chooses among the kinds of accuracy and of cross-entropy."""
    if y_pred.shape[-1] == 1:
        return binary(y, y_pred)
    is_sparse = len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1
    return (sparse if is_sparse else categorical)(y, y_pred)


_accuracy = functools.partial(
    _by_shapes,
    keras.metrics.binary_accuracy,
    keras.metrics.sparse_categorical_accuracy,
    keras.metrics.categorical_accuracy,
)
_crossentropy = functools.partial(
    _by_shapes,
    keras.losses.binary_crossentropy,
    keras.losses.sparse_categorical_crossentropy,
    keras.losses.categorical_crossentropy,
)
