"""A step of `fit`, `evaluate` or `predict`, as Keras runs it.

Its batch was checked before, so a model's call within it need not look at the data again: where
values can be seen (PyTorch) that would be a wait for the device in each step.

A step is whole or has not been, whatever breaks it off: an error, a callback, Ctrl-C. On JAX, Keras
takes the values out of a model while it runs and gives them away to each step, so that a model, and
with it all others on its backbone, would be left without; here they stay where they are until a
step is whole. TensorFlow runs a compiled step in one piece. On PyTorch a step is undone.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_mpt._keras import jax_step

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


def whole_steps(model: keras.Model, kind: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """A step that leaves the model its values until it has all new ones.

    Args:
        model: a `keras.Model` whose values are held by `settle_training`.
        kind: "train", "test" or "predict".
        made: its `train_function`, `test_function` or `predict_function`.

    Returns:
        A function in the place of `made`, or `made` itself.
    """
    is_jax = keras.backend.backend() == "jax"
    is_eager = keras.backend.backend() == "torch" or model.run_eagerly
    if hasattr(made, "is_whole") or not (is_jax or (is_eager and kind == "train")):
        return made
    whole = jax_step(model, kind) if is_jax else _undone_where_it_fails(model, made)
    whole.is_whole = True  # type: ignore[attr-defined]
    return whole


def _undone_where_it_fails(model: keras.Model, step: Callable[..., Any]) -> Callable[..., Any]:
    """A training step after whose failure the model and its optimizer are as they were.

    What is trained is small here, and so are its copies.
    """

    def undone(*args: Any) -> Any:
        trained = [*model.trainable_variables, *model.optimizer.variables]
        before = [ops.copy(ops.stop_gradient(v.value)) for v in trained]
        try:
            return step(*args)
        except BaseException:
            for variable, value in zip(trained, before, strict=True):
                variable.assign(value)
            raise

    return undone
