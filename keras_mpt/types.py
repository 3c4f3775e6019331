"""The names that annotations use for what Keras and its backends leave untyped.

They say what is meant to a reader and to an editor; a type checker can look no further, since Keras
has no types of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

Tensor: TypeAlias = Any
"""A tensor of the backend, with values or symbolic; a `keras.Variable`; or a NumPy array."""

Tensors: TypeAlias = Any
"""A nest of `Tensor`s: one, or a dict, list or tuple of them."""

ArrayLike: TypeAlias = Any
"""A NumPy array, or lists of numbers."""

TaskIds: TypeAlias = "int | str | Sequence[int] | Sequence[str] | Tensor"
"""The tasks of a batch's rows: an id or a name for all of them, or one per row."""

NumClasses: TypeAlias = "int | Sequence[int] | dict[str, int]"
"""Numbers of classes: one that all tasks share, one per task in their order, or by their names."""

Data: TypeAlias = Any
"""What `fit` takes as `x`: a dict of arrays or of text, text, or a stream of batches."""

TargetData: TypeAlias = Any
"""What `fit` takes as `y` or `sample_weight`: an array, or a list of numbers."""

Logs: TypeAlias = "dict[str, Any] | None"
"""What Keras hands to a callback."""

Config: TypeAlias = "dict[str, Any]"
"""A dict of JSON values, such as `get_config` gives."""

Backbone: TypeAlias = keras.Model
"""A `keras_hub.models.Backbone`, or a functional model with inputs of the same names."""

Task: TypeAlias = keras.Model
"""A `keras_hub.models.Task`, such as a `TextClassifier`, `CausalLM` or `Seq2SeqLM`."""

Preprocessor: TypeAlias = keras.layers.Layer
"""A `keras_hub.models.Preprocessor`."""

Tokenizer: TypeAlias = keras.layers.Layer
"""A `keras_hub.tokenizers.Tokenizer`."""

Sampler: TypeAlias = Any
"""A `keras_hub.samplers.Sampler`."""
