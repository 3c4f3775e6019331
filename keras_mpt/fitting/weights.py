"""Weights of rows, of targets and of classes, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_number
from keras_mpt.types import TargetData


def check_weights(sample_weight: TargetData) -> None:
    """Refuses weights that would make all of a model's numbers NaN, and what are no numbers.

    Args:
        sample_weight: array, a list or dict of arrays where a model has several outputs, or `None`.
    """
    for given in [] if sample_weight is None else keras.tree.flatten(sample_weight):
        weights = to_numpy(given)
        if weights.dtype.kind not in "iufb":
            raise ValueError(
                "`sample_weight` should hold finite numbers. Received: sample_weight of dtype "
                f"{weights.dtype}, such as {weights.ravel()[:1].tolist()}"
            )
        wrong = np.argwhere(~np.isfinite(weights))
        if wrong.size:
            place = tuple(wrong[0].tolist())
            raise ValueError(
                "`sample_weight` should hold finite numbers. Received: sample_weight with "
                f"{weights[place].item()} in row {place[0]}"
            )


def checked_weights_tf(sample_weight: TargetData, check: Callable[..., None]) -> TargetData:
    """The weights, inside `tf.data`, once a function has looked at their values.

    Args:
        sample_weight: tensor, a structure of them, or `None`.
        check: function of the weights, as an array.
    """
    import tensorflow as tf

    def look(given: np.ndarray) -> np.ndarray:
        check(given)
        return given

    def checked(given: Any) -> Any:
        if not tf.is_tensor(given):
            return given
        if given.dtype == tf.string:  # Known before there are values.
            check(np.empty(0, "U1"))
        seen = tf.numpy_function(look, [given], given.dtype, stateful=False)
        return tf.ensure_shape(seen, given.shape)

    return None if sample_weight is None else keras.tree.map_structure(checked, sample_weight)


def check_class_weight(class_weight: Mapping[int, float] | None, several_per_row: bool) -> None:
    """Refuses weights of classes where a row has several."""
    if several_per_row and class_weight is not None:
        raise ValueError(
            "`class_weight` should be left out: Keras takes it for one class per row. Give "
            f"`sample_weight`, (N,) or (N, S). Received: class_weight={class_weight!r}"
        )
    for label, weight in (class_weight or {}).items():
        check_number(f"class_weight[{label!r}]", weight)
