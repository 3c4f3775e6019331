"""Values of tensors, as NumPy arrays."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mpt._keras import in_symbolic_scope
from keras_mpt.checks import received
from keras_mpt.types import Tensor

# What is run is cut to its longest row, in steps of this: each width is compiled anew.
WIDTH_STEP = 16


def to_numpy(value: Tensor) -> np.ndarray:
    """A NumPy array of a tensor of any library, a variable or a list.

    bfloat16, which NumPy lacks, comes as float32, which holds it exactly.
    """
    if isinstance(value, keras.Variable) or keras.ops.is_tensor(value):
        array = np.asarray(keras.ops.convert_to_numpy(value))
    elif type(value).__module__.split(".")[0] == "torch":  # Of a file, under another backend.
        value = value.detach().cpu()
        array = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    else:
        array = np.asarray(value)
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def concrete(x: Tensor, name: str = "task_ids") -> np.ndarray | None:
    """`x` as a NumPy array, or `None` where it is a tensor without values yet (being traced).

    Args:
        x: tensor or array-like of integers.
        name: string. The argument, for the message. Defaults to `"task_ids"`.
    """
    if isinstance(x, keras.KerasTensor) or (in_symbolic_scope() and keras.ops.is_tensor(x)):
        return None
    try:
        if keras.ops.is_tensor(x):
            return np.asarray(keras.ops.convert_to_numpy(x))
        return np.asarray(x)  # Another library's tensor, such as tf.data's under PyTorch.
    except Exception as error:
        # Each backend has its own error for "no value while tracing" and none offers a public
        # test for it; any array-like that fails to convert is therefore taken as symbolic.
        if is_array(x):
            return None
        raise ValueError(
            f"`{name}` should be integers. Received: {name}={received(x)} of type "
            f"{type(x).__name__}"
        ) from error


def as_arrays(x: dict[str, Any]) -> dict[str, Tensor]:
    """A dict's lists and numbers as arrays; tensors, and what is missing, as they are."""
    found = dict(x)
    for name, value in x.items():
        # Objects are looked at: ids that are kept as such are ids, rows of them may be ragged.
        is_objects = name != "task_ids" and str(getattr(value, "dtype", "")) == "object"
        if value is None or (is_array(value) and not is_objects):
            continue
        try:
            found[name] = np.asarray(np.asarray(value).tolist() if is_objects else value)
        except ValueError:
            raise ValueError(
                f"`{name}` should be an array, or lists of equal lengths. Received: "
                f"{name}={value!r}"
            ) from None
    return found


def is_array(value: Any) -> bool:
    """Whether a value is an array or tensor of any library."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def to_power_of_two(values: np.ndarray) -> np.ndarray:
    """Values with the first repeated after them up to a power of two: each size is compiled."""
    size = 1 << (len(values) - 1).bit_length()
    return np.concatenate([values, np.repeat(values[:1], size - len(values), axis=0)])


def up_to_few(width: int) -> int:
    """The width, up to one of few: a multiple of `WIDTH_STEP`, and above 64 four to each doubling.

    Up to 512 there are 16.
    """
    step = max(WIDTH_STEP, 2 ** (max(int(width) - 1, 1).bit_length() - 3))
    return int(-(-width // step) * step)


def up_to_step(width: int) -> int:
    """The width, up to a multiple of `WIDTH_STEP`."""
    return int(-(-width // WIDTH_STEP) * WIDTH_STEP)
