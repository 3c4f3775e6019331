"""The gradient of `keras.ops.slice_update` on TensorFlow, which has none of its own.

keras-hub writes new keys and values into its cache with it. Keras runs it as the operation
`XlaDynamicUpdateSlice`, for which TensorFlow 2.21 says "no entry" when a gradient is asked for.
"""

from __future__ import annotations

import contextlib
from typing import Any

import keras
from keras import ops


def register() -> None:
    """Tells TensorFlow the gradient, once; nothing on the other backends, which know it.

    What lies under the update gets no gradient, the rest passes it on; the update gets its slice.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    def gradient(op: Any, grad: Any) -> tuple[Any, Any, None]:
        _, update, start = op.inputs
        rest = ops.slice_update(grad, start, tf.zeros_like(update))
        return rest, tf.slice(grad, tf.cast(start, "int32"), tf.shape(update)), None

    # An earlier call may have registered it, or a newer TensorFlow.
    with contextlib.suppress(KeyError):
        tf.RegisterGradient("XlaDynamicUpdateSlice")(gradient)
