"""A step of `fit`, `evaluate` or `predict`, as Keras runs it.

Its batch was checked before, so a model's call within it need not look at the data again: where
values can be seen (PyTorch) that would be a wait for the device in each step.

On JAX, Keras takes the variables' values out of the model while it trains, and loses them if a
stream raises an error, such as ours on bad input: the model would be of no more use. The state that
a step was given is still whole then, and is put back.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_mpt._keras import restore_jax_state

# The model that is being called by a step of its own.
_running: contextvars.ContextVar[keras.Model | None] = contextvars.ContextVar(
    "keras_mpt_running", default=None
)


@contextlib.contextmanager
def on_checked_data(model: keras.Model) -> Iterator[None]:
    """Around what a model's step does with a batch that it was given."""
    token = _running.set(model)
    try:
        yield
    finally:
        _running.reset(token)


def data_are_checked(model: keras.Model) -> bool:
    """Whether a model is called within a step of its own."""
    return _running.get() is model


def keeping_variables(model: keras.Model, step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that gives the model its variables back where it fails.

    Args:
        model: a `keras.Model`.
        step: its `train_function`, `test_function` or `predict_function`.

    Returns:
        A function like `step`; on the other backends `step` itself.
    """
    if keras.backend.backend() != "jax" or hasattr(step, "keeps_variables"):
        return step

    def kept(state: Any, iterator: Any) -> Any:
        try:
            return step(state, iterator)
        except Exception:
            if not any(value.is_deleted() for value in keras.tree.flatten(state)):
                restore_jax_state(model, state)
            raise

    kept.keeps_variables = True  # type: ignore[attr-defined]
    return kept
