"""A frozen backbone's fingerprint: enough of its numbers to notice another one.

An adapter, the state of a run or kept keys and values that are put on another backbone of the same
sizes raise no error, and mean nothing. A backbone is too large to be compared whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import is_integer, received
from keras_mpt.layer_settings import distinct_settings, settings_difference
from keras_mpt.types import Backbone, Config, Tensor

# How many numbers of each variable tell one backbone from another.
_OF_EACH = 16
# How many numbers an adapter notes: spread over the backbone, few enough to read.
_NOTED = 8


def sample(variables: Sequence[keras.Variable]) -> Tensor:
    """The first numbers of each variable, as one tensor: a function to compile.

    Args:
        variables: sequence of `keras.Variable`s.

    Returns:
        A float32 tensor of rank 1.
    """
    filled = [v for v in variables if math.prod(v.shape)]
    numbers = [_first_numbers(v) for v in filled]
    # Only what changes something: on PyTorch it is asked for with each text.
    flat = [n if len(n.shape) == 1 else ops.reshape(n, (-1,)) for n in numbers]
    is_other = [keras.backend.standardize_dtype(n.dtype) != "float32" for n in flat]
    return ops.concatenate(
        [ops.cast(n, "float32") if of else n for n, of in zip(flat, is_other, strict=True)]
    )


def digest(variables: Sequence[keras.Variable]) -> str:
    """A checksum of the first numbers, the shape and the dtype of each variable.

    Args:
        variables: sequence of `keras.Variable`s.

    Returns:
        A string of 16 hexadecimal digits.
    """
    found = hashlib.sha256()
    for variable in variables:
        shape = tuple(variable.shape)
        found.update(f"{shape} {variable.dtype} ".encode())
        if shape and math.prod(shape):
            found.update(to_numpy(_first_numbers(variable)).tobytes())
    return found.hexdigest()[:16]


def backbone_identity(backbone: Backbone) -> Config:
    """What an adapter notes: the backbone's class and size, and numbers from amid some weights.

    Args:
        backbone: a backbone.

    Returns:
        A dict of "class_name", "num_parameters", "values" and "settings", as JSON values.
    """
    matrices = [w for w in backbone.weights if len(w.shape) >= 2]
    chosen = np.linspace(0, len(matrices) - 1, _NOTED if matrices else 0).astype(int)
    return {
        "class_name": type(backbone).__name__,
        "num_parameters": sum(int(np.prod(w.shape)) for w in backbone.weights),
        "values": [_middle(matrices[i]) for i in chosen],
        "settings": distinct_settings(backbone),
    }


def backbone_difference(noted: dict[str, Any] | None, backbone: Backbone) -> str | None:
    """How a backbone differs from the one that an adapter noted, in words, or `None`.

    Numbers are compared as coarsely as bfloat16 holds them. A quantized backbone is not compared by
    its numbers, which are others.

    Args:
        noted: what `backbone_identity` gave; `None`, as in PEFT's adapters, fits any backbone.
        backbone: a backbone.
    """
    if noted is None:
        return None
    if not _is_identity(noted):
        raise ValueError(
            "`backbone` of an adapter should be what keras_mpt notes of one, or left out. "
            f"Received: backbone={received(noted)}"
        )
    found = backbone_identity(backbone)
    if noted.get("class_name") != found["class_name"]:
        return f"a {noted.get('class_name')}, not a {found['class_name']}"
    if any("int" in str(w.dtype) for w in backbone.weights if len(w.shape) >= 2):
        return _other_settings(noted, backbone)
    if noted.get("num_parameters") != found["num_parameters"]:
        return (
            f"a {found['class_name']} of {noted.get('num_parameters')} parameters, not "
            f"{found['num_parameters']}"
        )
    values = noted.get("values", [])
    if len(values) == len(found["values"]) and np.allclose(
        values, found["values"], rtol=1e-2, atol=1e-4
    ):
        return _other_settings(noted, backbone)
    return f"a {found['class_name']} with other weights"


def _is_identity(noted: Any) -> bool:
    return (
        isinstance(noted, dict)
        and isinstance(noted.get("class_name"), str)
        and is_integer(noted.get("num_parameters"))
        and isinstance(noted.get("values"), list)
        and all(isinstance(value, float) for value in noted["values"])
    )


def _other_settings(noted: dict[str, Any], backbone: Backbone) -> str | None:
    """As `backbone_difference`, of what layers compute with beside their weights."""
    difference = settings_difference(noted.get("settings"), backbone)
    if difference is None:
        return None
    return (
        f"a {type(backbone).__name__} {difference}; `keras_mpt.backbone_from_pretrained` reads a "
        "checkpoint's own"
    )


def _first_numbers(variable: keras.Variable) -> Tensor:
    """The first numbers along the last axis, or along the only one; a scalar itself."""
    value, axes = variable.value, len(variable.shape)
    if not axes:
        return value
    return value[(*(0,) * (axes - 1), slice(_OF_EACH))]


def _middle(variable: keras.Variable) -> float:
    value = variable.value[tuple(n // 2 for n in variable.shape)]
    return float(to_numpy(ops.cast(value, "float32")))
