"""What an `evaluate` measured, kept for the model card of an adapter with the same weights."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt import _keras
from keras_mpt.adapters.measured import Measured, checksum
from keras_mpt.types import Config


def noted(
    model: Any, logs: dict[str, float], given: tuple[Any, ...], kwargs: Config
) -> dict[str, float]:
    """What an `evaluate` gives that has just ended; the model notes it.

    Args:
        model: a `Fitting`.
        logs: what Keras gave.
        given: what Keras was given: `evaluate`'s arguments by position, data prepared.
        kwargs: likewise, by name.
    """
    x, y, batch_size, _, sample_weight, steps = given[:6]
    if steps is None:  # Else the logs are of some of the rows alone.
        logs = logs | model.exact_metrics((x, y, sample_weight), logs, batch_size)
    if _keras.is_validation_of_fit(kwargs):  # Of weights that are trained on.
        return logs
    of_tasks = {metric.name for metric in model.task_report.metrics}
    # Of a stream nobody has counted the rows.
    is_known = isinstance(x, dict) and steps is None
    rows = len(next(iter(x.values()))) if is_known else None
    own = {name: float(value) for name, value in logs.items() if name not in of_tasks}
    by_task = model.task_report.by_task(logs)
    model.measured = Measured(own, by_task, rows, _checksum(model))
    return logs


def measured_now(model: Any) -> Measured | None:
    """What `evaluate` last gave, where the model still has the weights that it was of.

    Args:
        model: a `Fitting`.
    """
    found: Measured | None = model.measured
    return found if found is not None and found.weights == _checksum(model) else None


def _checksum(model: keras.Model) -> str:
    frozen = [v for layer in model.always_frozen for v in layer.variables]
    of_frozen = {id(variable) for variable in frozen}
    return checksum([v for v in model.weights if id(v) not in of_frozen], frozen)
