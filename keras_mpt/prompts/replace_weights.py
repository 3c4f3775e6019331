"""Weights of another shape for a layer that is built: what changes when tasks come and go."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from keras_mpt._keras import replaced_variables


def replace_weights(layer: keras.layers.Layer, values: Mapping[str, np.ndarray]) -> None:
    """Puts variables that hold `values` in the place of a built layer's own.

    Keras lists each variable once, under its old path. It does so in the order in which they were
    added, which an optimizer's saved state follows: to keep that order, give all variables from
    the first one of another shape on.

    Args:
        layer: a built `keras.layers.Layer`.
        values: mapping of an attribute that holds a variable to its new value.
    """
    replaced = {name: getattr(layer, name) for name in values}
    with replaced_variables(layer, list(replaced.values())):
        for name, old in replaced.items():
            new = layer.add_weight(
                name=old.name, shape=values[name].shape, dtype=old.dtype, initializer="zeros"
            )
            new.trainable = old.trainable
            new.assign(values[name])
            setattr(layer, name, new)
