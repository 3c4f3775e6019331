"""All that is imported from inside Keras, because it has no public name.

- `in_symbolic_scope`: whether Keras is working out shapes. On PyTorch it may do so on tensors of
  ones, whose values mean nothing and must not be checked; nothing about those tensors shows it.
"""

from keras.src.backend import in_symbolic_scope

__all__ = ["in_symbolic_scope"]
