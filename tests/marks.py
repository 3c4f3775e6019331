"""When a test need not run on every backend."""

import keras
import pytest

# PyTorch compiles nothing.
IS_EAGER = keras.backend.backend() == "torch"

only_torch = pytest.mark.skipif(not IS_EAGER, reason="what it tests runs on PyTorch alone")
slow_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX compiles it for long; the other backends run it"
)
slow_on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="TensorFlow compiles it for long; the other backends run it",
)
only_eager = pytest.mark.skipif(
    not IS_EAGER, reason="it compiles for long; PyTorch, which compiles nothing, runs it"
)
