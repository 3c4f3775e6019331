"""A model's forward pass as a `tf.function`, on TensorFlow and on JAX."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt.exporting.plain_call import ByName, plain_call
from keras_mpt.exporting.signature import Signature
from keras_mpt.types import Tensor


def tensorflow_function(model: Any, signature: Signature) -> Any:
    """A traced function of a dict of int32 tensors.

    Args:
        model: a prompt-tuned model.
        signature: its signature.

    Returns:
        A `tf.function` with one concrete function.
    """
    import tensorflow as tf

    is_jax = keras.backend.backend() == "jax"
    forward = _on_jax(model, signature) if is_jax else plain_call(model)

    def named(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tf.identity(out, name=name) for name, out in forward(inputs).items()}

    specs = {
        name: tf.TensorSpec(shape, tf.int32, name=name) for name, shape in signature.shapes.items()
    }
    function = tf.function(named, input_signature=[specs], autograph=False)
    function.get_concrete_function()
    return function


def _on_jax(model: Any, signature: Signature) -> ByName:
    """The same of a JAX program, with the weights as TensorFlow's variables beside it.

    Keras's own way has the program give all frozen weights back, which are then assigned at each
    call.
    """
    import tensorflow as tf
    from jax.experimental import jax2tf

    forward, weights = plain_call(model), model.weights

    def with_weights(values: list[Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        with keras.StatelessScope(state_mapping=list(zip(weights, values, strict=True))):
            return forward(inputs)

    open_dimensions = {
        name: "(" + ", ".join(d if n is None else str(n) for d, n in pairs) + ",)"
        for name, shape in signature.shapes.items()
        for pairs in [list(zip(signature.dimensions[name], shape, strict=True))]
    }
    is_open = {d for dims in open_dimensions.values() for d in signature.most if d in dims}
    converted = jax2tf.convert(
        with_weights,
        polymorphic_shapes=[None, open_dimensions],
        polymorphic_constraints=[f"{d} <= {signature.most[d]}" for d in sorted(is_open)],
        with_gradient=False,
    )
    variables = [tf.Variable(keras.ops.convert_to_numpy(w), name=w.name) for w in weights]
    return lambda inputs: converted([v.value() for v in variables], inputs)
