"""What stays frozen, whatever a user sets `trainable` to."""

from __future__ import annotations

from typing import Any

import keras


class PartlyFrozen(keras.Model):
    """A `keras.Model` with layers that `trainable = True` does not thaw.

    Keras hands `trainable` down to all layers: a model frozen and thawed again would train its
    backbone.
    """

    @property
    def trainable(self) -> bool:
        """Whether the prompt and the head are trained. What is frozen for good stays so."""
        return bool(super().trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.Model.trainable.fset(self, value)
        for layer in self.always_frozen:
            freeze(layer)

    @property
    def always_frozen(self) -> list[Any]:
        """The layers that nothing trains."""
        return []


def freeze(layer: Any) -> None:
    """Sets a layer and all below it to `trainable=False`."""
    layer.trainable = False
    # Keras on TensorFlow leaves out an assignment of what is there already, and with it the
    # layers below: those of an attention layer that was saved frozen come back trainable.
    for variable in layer.variables:
        variable.trainable = False


def set_trainable(model: Any, trainable: bool, of_layers: list[bool]) -> None:
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
