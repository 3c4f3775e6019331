"""Freezing layers, and freezing a loaded model as it was."""

from __future__ import annotations

import keras


def freeze(layer: keras.layers.Layer) -> None:
    """Sets a layer and all below it to `trainable=False`."""
    layer.trainable = False
    # Keras on TensorFlow leaves out an assignment of what is there already, and with it the
    # layers below: those of an attention layer that was saved frozen come back trainable.
    for variable in layer.variables:
        variable.trainable = False


def set_trainable(model: keras.Model, trainable: bool, of_layers: list[bool]) -> None:
    """Freezes and thaws a model as another one of its class was.

    Args:
        model: a `keras.Model`.
        trainable: bool. The other's `trainable`.
        of_layers: list of bools. That of each of its `layers`.
    """
    if not trainable:
        model.trainable = False
    for layer, flag in zip(model.layers, of_layers, strict=False):
        if layer.trainable != flag:
            layer.trainable = flag
