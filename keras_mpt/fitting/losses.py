"""Losses and metrics of logits: what a name means, and what kind of targets a loss takes.

The models give logits. Keras's names mean losses of probabilities; here they mean those of logits.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

import keras
from keras import losses

from keras_mpt.fitting.own_columns import by_shapes
from keras_mpt.types import Tensor

# By which Keras chooses by the shapes of targets and outputs.
_BY_SHAPES = ("crossentropy", "ce")
ACCURACY = ("accuracy", "acc")


class Kind(enum.Enum):
    """The kind of targets that a loss takes."""

    LABELS = "labels"  # The number of a class.
    DISTRIBUTIONS = "distributions"  # A probability of each class, one-hot for one.
    CLASSES = "classes"  # Either of both, as their shape says.
    BINARY = "binary"  # A probability per output, by itself.
    NUMBERS = "numbers"  # A number per output.
    UNKNOWN = "unknown"  # Of a user's own loss.


_KINDS: dict[Any, Kind] = {
    losses.sparse_categorical_crossentropy: Kind.LABELS,
    losses.categorical_crossentropy: Kind.DISTRIBUTIONS,
    losses.categorical_focal_crossentropy: Kind.DISTRIBUTIONS,
    losses.categorical_hinge: Kind.DISTRIBUTIONS,
    losses.binary_crossentropy: Kind.BINARY,
    losses.binary_focal_crossentropy: Kind.BINARY,
    losses.mean_squared_error: Kind.NUMBERS,
    losses.mean_absolute_error: Kind.NUMBERS,
    losses.mean_absolute_percentage_error: Kind.NUMBERS,
    losses.mean_squared_logarithmic_error: Kind.NUMBERS,
    losses.cosine_similarity: Kind.NUMBERS,
    losses.huber: Kind.NUMBERS,
    losses.log_cosh: Kind.NUMBERS,
    losses.hinge: Kind.NUMBERS,
    losses.squared_hinge: Kind.NUMBERS,
}
# Keras's losses and metrics of what is no logit, functions and classes, which have no other form.
_OF_PROBABILITIES = {
    *("kl_divergence", "poisson", "dice", "tversky", "categorical_generalized_cross_entropy"),
    *("KLDivergence", "Poisson", "Dice", "Tversky", "CategoricalGeneralizedCrossEntropy"),
}


_CROSSENTROPY = by_shapes(
    *(
        functools.partial(function, from_logits=True)
        for function in (
            losses.binary_crossentropy,
            losses.sparse_categorical_crossentropy,
            losses.categorical_crossentropy,
        )
    )
)


@keras.saving.register_keras_serializable(package="keras_mpt")
class Crossentropy(losses.Loss):
    """The cross-entropy of logits that suits the shapes, as Keras chooses it for "crossentropy".

    Args:
        name: string. Defaults to `"crossentropy"`.
        reduction: string. Defaults to `"sum_over_batch_size"`.
    """

    def __init__(
        self, name: str = "crossentropy", reduction: str | None = "sum_over_batch_size"
    ) -> None:
        super().__init__(name=name, reduction=reduction)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Binary of one output, sparse of labels, else categorical."""
        return _CROSSENTROPY(y_true, y_pred)


def kind_of(loss: Any, of_one_output: bool) -> Kind:
    """The kind of targets that a loss takes.

    Args:
        loss: what `loss_on_logits` gave.
        of_one_output: bool. Whether it is of one output, such as a score.
    """
    if isinstance(loss, Crossentropy):
        return Kind.BINARY if of_one_output else Kind.CLASSES
    function = _function(loss)
    if callable(function) and function in _KINDS:
        return _KINDS[function]
    return Kind.LABELS if "sparse" in getattr(function, "__name__", "") else Kind.UNKNOWN


def is_per_target(loss: Any) -> bool:
    """Whether a loss is known to be of each target by itself, over the outputs' last axis.

    Args:
        loss: what `loss_on_logits` gave.
    """
    package = type(loss).__module__.split(".")[0]
    if isinstance(loss, losses.Loss) and package not in ("keras", "keras_mpt"):
        return False
    axis = getattr(loss, "axis", None) or getattr(loss, "keywords", {}).get("axis")
    function = _function(loss)
    is_known = isinstance(loss, Crossentropy) or (callable(function) and function in _KINDS)
    return is_known and axis in (None, -1)


def is_of_a_user(loss: Any) -> bool:
    """Whether a loss is a user's own, which is known by the values that it gives.

    Args:
        loss: what `loss_on_logits` gave.
    """
    if loss is None or is_per_target(loss):
        return False
    return not isinstance(loss, losses.Loss) or type(loss).__call__ is losses.Loss.__call__


def loss_on_logits(loss: Any) -> Any:
    """A loss as it is meant for logits.

    Args:
        loss: what `compile` takes: a name, a function, a class, an object or its config.

    Returns:
        An object, or a function that knows no `from_logits`.

    Raises:
        ValueError: an object that reads logits as probabilities, or a loss that has no other form.
    """
    if isinstance(loss, str) and loss.lower() in _BY_SHAPES:
        return Crossentropy()
    found = losses.get(loss)
    if _is_of_probabilities(found):
        _refuse_probabilities("loss", loss)
    if not isinstance(found, losses.Loss):
        return _function_on_logits("loss", found, losses)
    return _object_on_logits("loss", found, is_named=isinstance(loss, str) or inspect.isclass(loss))


def metric_on_logits(metric: Any, kind: Kind) -> Any:
    """A metric as it is meant for logits, beside a loss that takes targets of a kind.

    Args:
        metric: a name, a function, a class or an object.
        kind: that of the loss.

    Returns:
        A metric that Keras takes.

    Raises:
        ValueError: an object that reads logits as probabilities, or a metric without another form.
    """
    if isinstance(metric, str) and metric.lower() in ACCURACY:
        return _accuracy(kind, metric) or metric
    found = keras.metrics.get(metric)
    if _is_of_probabilities(found):
        _refuse_probabilities("metrics", metric)
    is_named = isinstance(metric, str) or inspect.isclass(metric)
    if not isinstance(found, keras.Metric):
        found = _function_on_logits("metrics", found, keras.metrics)
    if not isinstance(found, keras.Metric):  # Of a user's own, or one that only counts.
        return metric if kind is not Kind.BINARY else _binary_class(found, metric)
    found = _object_on_logits("metrics", found, is_named)
    if kind is Kind.BINARY:
        found = _at_zero(found, is_named)
    if isinstance(metric, str):
        found.name = metric
    return found


def accuracy_of(kind: Kind, of_one_output: bool) -> list[Any]:
    """The metrics that suit a loss.

    Args:
        kind: that of the loss.
        of_one_output: bool. Whether it is of one output, such as a score.

    Returns:
        A list: accuracy, of numbers the mean absolute error, nothing where neither makes sense.
    """
    if kind is Kind.NUMBERS:
        return [keras.metrics.MeanAbsoluteError(name="mae")]
    if kind in (Kind.UNKNOWN, Kind.CLASSES):
        return [] if of_one_output else ["accuracy"]
    return [_accuracy(kind, "accuracy")]


def _accuracy(kind: Kind, name: str) -> Any:
    """Accuracy beside a loss, or `None` where Keras's own choice by shapes is right."""
    if kind is Kind.LABELS:
        return keras.metrics.SparseCategoricalAccuracy(name=name)
    if kind is Kind.DISTRIBUTIONS:
        return keras.metrics.CategoricalAccuracy(name=name)
    if kind is Kind.BINARY:
        return keras.metrics.BinaryAccuracy(name=name, threshold=0.0)
    return None


def _function(loss: Any) -> Any:
    """What is below an object, and below arguments that were given beforehand."""
    loss = loss.fn if isinstance(loss, losses.Loss) and hasattr(loss, "fn") else loss
    while isinstance(loss, functools.partial):
        loss = loss.func
    return loss


def _is_of_probabilities(item: Any) -> bool:
    item = _function(item)
    found = item if hasattr(item, "__name__") else type(item)
    is_keras = getattr(found, "__module__", "").split(".")[0] == "keras"
    return is_keras and found.__name__ in _OF_PROBABILITIES


def _refuse_probabilities(argument: str, given: Any) -> NoReturn:
    raise ValueError(
        f"`{argument}` should be of logits, which the model gives, such as "
        f"`keras.losses.CategoricalCrossentropy(from_logits=True)`. Received: {argument}={given!r},"
        " which reads them as probabilities"
    )


def _reads_logits(item: Any) -> bool | None:
    """An object's `from_logits`, or `None` where it has none."""
    found = getattr(item, "from_logits", None)
    if found is None:
        try:
            found = item.get_config().get("from_logits")
        except Exception:  # A class of the user's own may fail in any way; it is not ours to say.
            return None
    return None if found is None else bool(found)


def _object_on_logits(argument: str, item: Any, is_named: bool) -> Any:
    if _reads_logits(item) is not False:
        return item
    if is_named:
        return type(item).from_config({**item.get_config(), "from_logits": True})
    raise ValueError(
        f"`{argument}` should have `from_logits=True`: the model gives logits. Received: a "
        f"{type(item).__name__} with from_logits=False"
    )


def _function_on_logits(argument: str, function: Callable[..., Any], module: Any) -> Any:
    """A function that knows `from_logits`, with it; Keras's own as the object of it."""
    try:
        known = inspect.signature(_function(function)).parameters.get("from_logits")
    except (TypeError, ValueError):  # Not written in Python.
        return function
    if known is None:
        return function
    given = function.keywords if isinstance(function, functools.partial) else {}
    if "from_logits" not in given and known.default is not False:
        return function
    if given.get("from_logits") is False:
        raise ValueError(
            f"`{argument}` should have `from_logits=True`: the model gives logits. Received: "
            f"{_function(function).__name__} with from_logits=False"
        )
    cls = _class_of(function, module)
    if cls is not None:
        return cls(from_logits=True)
    return functools.partial(function, from_logits=True)


def _class_of(function: Any, module: Any) -> Any:
    """Keras's class of one of its functions, or `None`."""
    name = getattr(function, "__name__", "")
    is_own = getattr(module, name, None) is function
    return getattr(module, name.title().replace("_", ""), None) if is_own else None


def _binary_class(function: Any, given: Any) -> Any:
    if function is not keras.metrics.binary_accuracy:
        return given
    name = given if isinstance(given, str) else "binary_accuracy"
    return keras.metrics.BinaryAccuracy(name=name, threshold=0.0)


def _at_zero(metric: keras.Metric, is_named: bool) -> keras.Metric:
    """A metric that compares outputs with a half compares logits with zero."""
    if getattr(metric, "threshold", None) == 0.5:
        argument = "threshold"
    elif getattr(metric, "thresholds", None) == [0.5]:
        argument = "thresholds"
    else:
        return metric
    if is_named:
        return type(metric).from_config({**metric.get_config(), argument: 0.0})
    raise ValueError(
        f"`metrics` should have `{argument}=0.0`: the model gives logits, and that of a "
        f"probability of a half is 0. Received: a {type(metric).__name__} with {argument}=0.5"
    )
