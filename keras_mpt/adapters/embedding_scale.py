"""What a backbone multiplies its token embeddings by, and transformers' adapters have in them.

Gemma and its kin multiply token embeddings by √d. keras-hub does it after the embedding, so our
prompts, which stand beside the embeddings, are multiplied as well. transformers does it inside
`embed_tokens`, so PEFT's prompts come after the multiplication. An adapter file has PEFT's numbers:
a P that is read is divided by the scale, a P that is written multiplied. The factors of the tasks
are relative to P and stay as they are.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy
from keras_mpt.families import transformers_scales_after_embedding
from keras_mpt.splicing.cut import consumers
from keras_mpt.splicing.splice import Splice
from keras_mpt.types import Backbone


def embedding_scale(splice: Splice, backbone: Backbone) -> np.ndarray:
    """What P in an adapter file is larger by than P in the model.

    The scale is read from the graph: the constant in the multiplication that a token embedding's
    output goes into, 1 where there is none.

    Args:
        splice: the model's `Splice`.
        backbone: the backbone that it cuts.

    Returns:
        float32 (M·L, 1): one scale per token input, repeated for its prompt positions.
    """
    count = splice.num_transformer_submodules
    scales = [1.0] * count
    if not transformers_scales_after_embedding(backbone):
        scales = [constant_factor(splice.graph.rest, i) for i in range(count)]
    return np.repeat(np.array(scales, "float32"), splice.num_virtual_tokens)[:, None]


def constant_factor(rest: keras.Model, index: int) -> float:
    """The number that a functional model multiplies an input by as the first thing, or 1.

    Args:
        rest: a functional `keras.Model`.
        index: int. Which of its inputs.

    Returns:
        A float.
    """
    tensor = rest.inputs[index]
    nodes = consumers(rest, tensor)
    if len(nodes) != 1 or type(nodes[0].operation).__name__ != "Multiply":
        return 1.0
    arguments = [*nodes[0].arguments.args, *nodes[0].arguments.kwargs.values()]
    factors = [_number(value) for value in arguments if value is not tensor]
    return factors[0] if len(factors) == 1 and factors[0] is not None else 1.0


def _number(value: Any) -> float | None:
    """A constant's value where it is one number, else `None`."""
    if isinstance(value, keras.KerasTensor) or len(ops.shape(value)) > 0:
        return None
    return float(to_numpy(ops.cast(value, "float32")))
