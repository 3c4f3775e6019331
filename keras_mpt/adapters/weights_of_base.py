"""Weights of the base model that PEFT saved in an adapter.

It does so where the vocabulary was resized (`save_embedding_layers="auto"`), and by
`modules_to_save`. A backbone that has the same numbers needs none of them; on another, prompts that
were trained beside them mean nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.adapters.head_names import PREFIX
from keras_mpt.arrays import to_numpy
from keras_mpt.types import Backbone


def without_base(
    state: Mapping[str, Any], own: Collection[str], backbone: Backbone, source: str
) -> dict[str, Any]:
    """An adapter's state without what its base has as well.

    Args:
        state: mapping of name to array.
        own: names of the prompt's and the head's weights.
        backbone: the backbone that the adapter is loaded on.
        source: string. Where the state comes from, for messages.

    Raises:
        ValueError: weights of a base that the backbone does not have.
    """
    base = {n: v for n, v in state.items() if n not in own and n.startswith(f"{PREFIX}.")}
    if set(own) - set(state):  # Another model's head: what is missing is the matter.
        return dict(state)
    other = [name for name, value in base.items() if not _has(backbone, value)]
    if other:
        raise _not_the_backbone_s(source, other, base)
    return {name: value for name, value in state.items() if name not in base}


def _has(backbone: Backbone, value: np.ndarray) -> bool:
    """Whether some weight of a backbone has these numbers; PyTorch's matrices are turned."""
    return any(
        _equal(variable, turned)
        for turned in (value, value.T)
        for variable in backbone.weights
        if tuple(variable.shape) == turned.shape
    )


def _equal(variable: keras.Variable, value: np.ndarray) -> bool:
    """Whether both have the same numbers, as precisely as the coarser of the two holds them."""
    if not keras.backend.is_float_dtype(variable.dtype):
        return False
    for dtype in (variable.dtype, "float16", "bfloat16"):
        coarse = _cast(value, dtype)
        is_as_coarse = dtype == variable.dtype or np.array_equal(coarse, value)
        if is_as_coarse and np.array_equal(_cast(variable, dtype), coarse):
            return True
    return False


def _cast(value: Any, dtype: str) -> np.ndarray:
    return to_numpy(ops.cast(ops.convert_to_tensor(value), dtype)).astype("float32")


def _not_the_backbone_s(source: str, names: list[str], base: Mapping[str, Any]) -> ValueError:
    shown = [f"{name} {base[name].shape}" for name in sorted(names)]
    return ValueError(
        f"`{source}` should hold the prompt, the head, and no weights of the base but those that "
        f"the backbone has. Received: {shown}, other ones, which PEFT saves of a resized "
        "vocabulary (`save_embedding_layers`) and by `modules_to_save`. Load the backbone from "
        "that base, or set its layers' weights to these (`keras_mpt.read_state_dict` reads them); "
        "or save the adapter in PEFT without them"
    )
