"""All that is taken from inside Keras, because it has no public name.

- `in_symbolic_scope`: whether Keras is working out shapes. On PyTorch it may do so on tensors of
  ones, whose values mean nothing and must not be checked; nothing about those tensors shows it.
- `mean_values`: what a metric such as `SparseCategoricalAccuracy` is the mean of.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras.src.backend import in_symbolic_scope

__all__ = ["in_symbolic_scope", "mean_values"]


def mean_values(metric: Any) -> Callable[[Any, Any], Any] | None:
    """The function of targets and outputs whose mean a metric is, or `None`."""
    wrapper = keras.metrics.MeanMetricWrapper
    if not isinstance(metric, wrapper) or type(metric).update_state is not wrapper.update_state:
        return None
    return lambda y, y_pred: metric._fn(y, y_pred, **metric._fn_kwargs)
