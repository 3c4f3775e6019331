"""Compiling a model's function beside those that Keras compiles for `fit` and `predict`."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from keras_mpt.splicing.view import View


def compiled(model: Any, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of the model's weights, compiled as keras-hub compiles `generate`.

    keras-hub's way asks a model for `generate_step`, and on JAX hands over the variables' values at
    each call, so that a compiled function sees them change.

    Args:
        model: a compiled `keras.Model`.
        function: takes a nest of arrays, gives a nest of tensors.

    Returns:
        The function: compiled on TensorFlow and JAX, without gradients on PyTorch.
    """
    import keras_hub

    def generate_step(inputs: Any, stop_token_ids: Any = None) -> Any:
        return function(inputs)

    no_draws = types.SimpleNamespace(variables=[])
    view = View(model, generate_step=generate_step, generate_function=None, sampler=no_draws)
    made: Callable[[Any], Any] = keras_hub.models.CausalLM.make_generate_function(view)
    return made
