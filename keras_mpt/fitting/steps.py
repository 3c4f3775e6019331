"""A step of `fit`, `evaluate` or `predict`, as the functions that Keras compiles for them are run.

Their data were checked before, so a model's call need not look at them again: where values can be
seen (PyTorch) that would be a wait for the device in each step.

On JAX, Keras takes the variables' values out of the model while it trains, and loses them if a
stream raises an error, such as ours on bad input: the model would be of no more use. The state that
a step was given is still whole then, and is put back.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import keras

from keras_mpt._keras import restore_jax_state
from keras_mpt.types import Data

# The model whose step is being run.
_running: contextvars.ContextVar[keras.Model | None] = contextvars.ContextVar(
    "keras_mpt_running", default=None
)


def data_are_checked(model: keras.Model, inputs: Data) -> bool:
    """Whether a model is called by a step of its own, on tensors that Keras made for it."""
    if _running.get() is not model or not isinstance(inputs, dict):
        return False
    return all(keras.ops.is_tensor(value) for value in inputs.values())


def as_step(model: keras.Model, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as a step: on checked data, and leaving the model its variables where it fails.

    Args:
        model: a `keras.Model`.
        function: its `train_function`, `test_function` or `predict_function`.

    Returns:
        A function like it.
    """
    if hasattr(function, "is_step"):
        return function
    is_jax = keras.backend.backend() == "jax"

    def step(*args: Any) -> Any:
        token = _running.set(model)
        try:
            return function(*args)
        except Exception:
            if is_jax:
                _restore(model, args[0])
            raise
        finally:
            _running.reset(token)

    step.is_step = True  # type: ignore[attr-defined]
    return step


def _restore(model: keras.Model, state: Any) -> None:
    if not any(value.is_deleted() for value in keras.tree.flatten(state)):
        restore_jax_state(model, state)
