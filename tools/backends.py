"""The backends, as pages name them."""

NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
