"""Keeping a model's variables where a step on JAX fails.

On JAX, Keras takes the variables' values out of the model while it trains, and loses them if a
stream raises an error, such as ours on bad input: the model would be of no more use. The state that
a step was given is still whole then, and is put back. Keras keeps it in `_jax_state`, for which it
has no public name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from keras_mpt._keras import restore_jax_state


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
