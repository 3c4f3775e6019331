"""What callbacks see of the tasks' logs: columns of those alone that had rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras

from keras_mpt.fitting.task_report import RowsMetric
from keras_mpt.types import Logs


class WithoutGaps(keras.callbacks.Callback):
    """Takes the logs of tasks that had no rows out of what callbacks after it see.

    Args:
        names: the tasks' logs, without "val_".
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        # It only takes from what it is given, so Keras need not wait for it.
        self.async_safe = True
        self._names = set(names)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Takes out what has no value yet."""
        self.take_gaps(logs)

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Takes out what has no value yet."""
        self.take_gaps(logs)

    def on_test_end(self, logs: Logs = None) -> None:
        """Takes out what has no value."""
        self.take_gaps(logs)

    def take_gaps(self, logs: Logs) -> list[str]:
        """Takes out the logs of tasks without rows, and gives their names.

        A loss that is no number makes the loss of all rows none: then nothing is hidden.
        """
        gaps: list[str] = []
        for name in list(logs or ()):
            assert logs is not None
            prefix = "val_" if name.startswith("val_") else ""
            if name.removeprefix("val_") not in self._names or not _is_nan(logs[name]):
                continue
            if not _is_nan(logs.get(f"{prefix}loss", 0.0)):
                del logs[name]
                gaps.append(name)
        return gaps


class TaskHistory(WithoutGaps, keras.callbacks.History):
    """Keras's history without columns of tasks that had no rows.

    A column has an entry per epoch: NaN where its task had no rows, if it had some in another.

    Args:
        names: as in `WithoutGaps`.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(names)
        # How many epochs a column has missed that has none yet.
        self._missed: dict[str, int] = {}

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Adds an epoch."""
        logs = {} if logs is None else logs
        for name in self.take_gaps(logs):
            if name in self.history:
                self.history[name].append(math.nan)
            else:
                self._missed[name] = self._missed.get(name, 0) + 1
        for name in logs:
            if name in self._missed:
                self.history[name] = [math.nan] * self._missed.pop(name)
        super().on_epoch_end(epoch, logs)


def as_list(logs: dict[str, float], metrics: Iterable[keras.Metric]) -> float | list[float]:
    """Logs as Keras gives them without names: in the order of its metrics, and one by itself.

    Args:
        logs: dict of name to number.
        metrics: a model's metrics.
    """
    names = [m.name for metric in metrics for m in getattr(metric, "metrics", [metric])]
    names = [name for name in names if name in logs]
    found = [logs[name] for name in (*names, *sorted(set(logs) - set(names)))]
    return found if len(found) > 1 else found[0]


def without_gaps(
    callbacks: Any, metrics: Iterable[keras.Metric], kind: type[WithoutGaps] = WithoutGaps
) -> Any:
    """Callbacks as Keras takes them, in front of them one that takes gaps out of the logs.

    Args:
        callbacks: list of callbacks, one, or `None`. A `CallbackList` stays as it is.
        metrics: the model's metrics.
        kind: the class of that callback. Defaults to `WithoutGaps`.
    """
    names = [metric.name for metric in metrics if isinstance(metric, RowsMetric)]
    if not names or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    return [kind(names), *keras.tree.flatten(callbacks or [])]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
