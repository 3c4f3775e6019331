"""Outputs of several models and one gradient, in one compiled function where that is quicker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


def run_once(
    outputs_of: Callable[[], Any],
    differentiated: Callable[[], list[Any]],
    variable: Any,
    models: Any,
    copies: Any = (),
) -> tuple[Any, np.ndarray]:
    """Some outputs as NumPy arrays, and the gradient of others with respect to a variable.

    JAX compiles both into one program; operations one by one would each be compiled for each
    family's shapes. TensorFlow and PyTorch are quicker without compiling.

    Args:
        outputs_of: gives nested tensors.
        differentiated: gives the tensors whose weighted sum is differentiated. The weights are
            random, as a plain sum after a layer norm has no gradient. It is apart from
            `outputs_of` because JAX rounds otherwise where it differentiates.
        variable: a `keras.Variable`.
        models: whose variables the two use.
        copies: pairs of a variable and one in `models` with the same value, for JAX to compile what
            they are used in once.

    Returns:
        The outputs and the gradient.
    """

    def weighted_sum() -> Any:
        rng = np.random.default_rng(2)
        values = differentiated()
        weights = [ops.convert_to_tensor(rng.normal(size=x.shape), "float32") for x in values]
        return sum(ops.sum(w * x) for w, x in zip(weights, values, strict=True))

    backend = keras.backend.backend()
    if backend == "jax":
        outputs, gradient = _on_jax(outputs_of, weighted_sum, variable, models, copies)
    elif backend == "tensorflow":
        import tensorflow as tf

        outputs = outputs_of()
        with tf.GradientTape() as tape:
            total = weighted_sum()
        gradient = tape.gradient(total, variable.value)
    else:
        import torch

        with torch.no_grad():
            outputs = outputs_of()
        weighted_sum().backward()
        gradient = variable.value.grad
    return keras.tree.map_structure(ops.convert_to_numpy, outputs), ops.convert_to_numpy(gradient)


def _on_jax(
    outputs_of: Any, weighted_sum: Any, variable: Any, models: Any, copies: Any
) -> tuple[Any, Any]:
    import jax

    variables = {id(v): v for model in models for v in model.variables}

    def both(values: dict[int, Any]) -> tuple[Any, Any]:
        given = [(v, values[key]) for key, v in variables.items()]
        given += [(copy, values[id(v)]) for copy, v in copies]

        def loss(value: Any) -> Any:
            with keras.StatelessScope([*given, (variable, value)]):
                return weighted_sum()

        with keras.StatelessScope(given):
            outputs = outputs_of()
        return outputs, jax.grad(loss)(values[id(variable)])

    # It runs once: what the compiler would spend on making it fast is not won back.
    options = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
    }
    compiled = jax.jit(both, compiler_options=options)
    return compiled({key: v.value for key, v in variables.items()})
