"""Parts of trained variables that training leaves as they are, to the bit, by any optimizer.

Tasks' factors and heads stand side by side in one variable each. A gradient of zero does not keep a
part of it: weight decay, momentum, averages and some optimizers' own rules move it all the same. So
what a step made of these parts is put back within the step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy


class KeptPart(NamedTuple):
    """A part of a variable.

    Attributes:
        variable: the variable.
        mask: bool array that broadcasts to its shape: what is kept.
    """

    variable: keras.Variable
    mask: np.ndarray


class Kept:
    """What training leaves as it is, beside what is frozen for good: nothing."""

    def layers(self) -> list[keras.layers.Layer]:
        """Layers that are frozen for now."""
        return []

    def parts(self) -> list[KeptPart]:
        """Parts of variables that are trained."""
        return []

    def settle(self) -> None:
        """Takes in what was set since the model was last trained."""


def step_that_keeps(
    model: keras.Model, parts: Sequence[KeptPart], step: Callable[..., Any], *args: Any
) -> Any:
    """A training step of Keras's, after which the parts are what they were.

    Args:
        model: the model that is trained.
        parts: what is kept of its variables.
        step: its `train_step`.
        *args: a batch; on JAX the variables' values before it.
    """
    if not parts:
        return step(*args)
    if keras.backend.backend() != "jax":
        before = [ops.copy(ops.stop_gradient(ops.convert_to_tensor(p.variable))) for p in parts]
        logs = step(*args)
        for (variable, mask), old in zip(parts, before, strict=True):
            variable.assign(ops.where(mask, old, ops.convert_to_tensor(variable)))
        return logs
    logs, (trained, *others) = step(*args)
    places = {id(v): i for i, v in enumerate(model.trainable_variables)}
    old_values, trained = args[0][0], list(trained)
    for variable, mask in parts:
        i = places.get(id(variable))
        if i is not None:
            trained[i] = ops.where(mask, old_values[i], trained[i])
    return logs, (trained, *others)


@contextlib.contextmanager
def kept_through(parts: Sequence[KeptPart]) -> Iterator[None]:
    """Keeps the parts through a `fit`, whose end may put an optimizer's averages in their place."""
    before = [to_numpy(part.variable) for part in parts]
    try:
        yield
    finally:
        for (variable, mask), old in zip(parts, before, strict=True):
            variable.assign(np.where(mask, old, to_numpy(variable)))
