"""Keeping a model's variables where a step on JAX fails.

On JAX, Keras takes the variables' values out of the model while it trains, and loses them if a
stream raises an error, such as ours on bad input: the model would be of no more use. The state that
a step was given is still whole then, and is put back. Keras keeps it in `_jax_state`, for which it
has no public name.
"""

from __future__ import annotations

from typing import Any

import keras

# What a step's state holds on JAX, by its length: to predict, to test and to train.
_JAX_STATES = {
    2: ("trainable_variables", "non_trainable_variables"),
    3: ("trainable_variables", "non_trainable_variables", "metrics_variables"),
    4: (
        "trainable_variables",
        "non_trainable_variables",
        "optimizer_variables",
        "metrics_variables",
    ),
}


def keeping_variables(model: Any, step: Any) -> Any:
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
                model._jax_state = dict(zip(_JAX_STATES[len(state)], state, strict=True))
                model._jax_state_synced = False
                model.jax_state_sync()
            raise

    kept.keeps_variables = True  # type: ignore[attr-defined]
    return kept
