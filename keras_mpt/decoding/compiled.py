"""Compiling a model's functions beside those that Keras compiles for `fit` and `predict`."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import keras

from keras_mpt._keras import sublayers
from keras_mpt.decoding.replayed_steps import ReplayedSteps
from keras_mpt.decoding.sampler_steps import SamplerSteps, is_keras_hub_s
from keras_mpt.splicing.frozen_products import with_frozen_products
from keras_mpt.splicing.view import View
from keras_mpt.types import Sampler, Tensors


class CompiledFunctions:
    """Functions of a model's weights, each compiled when it is first asked for.

    keras-hub's way of compiling `generate` asks a model for `generate_step`, and on JAX hands over
    the variables' values at each call, so that a compiled function sees them change.

    Args:
        model: a compiled `keras.Model`.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._made: dict[tuple[Any, ...], Callable[..., Any]] = {}
        self.steps = ReplayedSteps()

    @property
    def count(self) -> int:
        """How many are compiled."""
        return len(self._made)

    def of(self, function: Callable[..., Tensors], owner: Any) -> Callable[[Tensors], Tensors]:
        """A function, compiled on TensorFlow and JAX, without gradients on PyTorch.

        Args:
            function: function of an object and a nest of arrays that gives a nest of tensors.
            owner: that object.

        Returns:
            The same function of the nest alone.
        """

        def step(inputs: Tensors, stop_token_ids: object = None) -> Tensors:
            return function(owner, inputs)

        no_draws = types.SimpleNamespace(variables=[])
        return self._compiled((function, owner), step, no_draws)

    def drawing(
        self, function: Callable[..., Tensors], owner: Any, sampler: Sampler
    ) -> Callable[..., Tensors]:
        """A function that draws tokens.

        Args:
            function: function of an object, a nest of arrays, the sampler, the model, the tokens to
                stop at, and how the sampler's steps run (`None`: as they are).
            owner: that object.
            sampler: a keras-hub sampler.

        Returns:
            The same function of the nest, and the tokens to stop at by the name `stop_token_ids`.
        """

        def step(inputs: Tensors, stop_token_ids: tuple[int, ...] | None = None) -> Tensors:
            steps = SamplerSteps(self.steps, owner) if _is_replayed(self._model) else None
            return function(owner, inputs, sampler, self._model, stop_token_ids, steps)

        return self._compiled((function, owner, sampler), step, sampler)

    def forget(self) -> None:
        """Forgets what was compiled, as other variables or `compile` arguments ask for."""
        self._made.clear()
        self.steps.forget()

    def _compiled(
        self, key: tuple[Any, ...], step: Callable[..., Tensors], sampler: Any
    ) -> Callable[..., Tensors]:
        import keras_hub

        if key not in self._made:
            if keras.backend.backend() == "tensorflow" and is_keras_hub_s(sampler):
                import tensorflow as tf

                # Looking for Python's `if` and `while` over tensors, to rewrite them, takes longer
                # than all else in a first call. Code that also runs on JAX has none.
                step = tf.autograph.experimental.do_not_convert(step)
            step = with_frozen_products(step)
            instead = {"generate_step": step, "generate_function": None, "sampler": sampler}
            view = View(self._model, **instead)
            made = keras_hub.models.CausalLM.make_generate_function(view)
            return self._made.setdefault(key, made)
        return self._made[key]


def _is_replayed(model: keras.Model) -> bool:
    """Whether steps may be replayed: on PyTorch, in a model of Keras's and keras-hub's layers.

    What these compute follows from a token's place by adding to it; of others' layers two
    recordings would not tell.
    """
    if keras.backend.backend() != "torch" or model.run_eagerly:
        return False
    modules = {type(layer).__module__.partition(".")[0] for layer in sublayers(model)}
    return modules <= {"keras", "keras_hub", "keras_mpt"}
