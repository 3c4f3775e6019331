"""Tensors in PyTorch's own files, read without running what such a file may hold."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpt.arrays import to_numpy


def read_torch(content: bytes, file: Path, one_alone: bool = False) -> dict[str, np.ndarray]:
    """The tensors of a file of `torch.save`, by `torch.load(weights_only=True)`.

    Args:
        content: bytes. The file's.
        file: its path, for messages.
        one_alone: bool. Whether it may also be one tensor without a name, which is then `""`.
            Defaults to `False`.

    Returns:
        `{name: array}`.

    Raises:
        ValueError: a file that is truncated, of another kind, or holds more than tensors.
        ImportError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"Reading {str(file)!r} needs PyTorch: `pip install keras-mpt[torch]`, or save it as "
            ".safetensors, which needs none."
        ) from error
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if one_alone and isinstance(state, torch.Tensor):
            state = {"": state}
        if not isinstance(state, dict):
            raise TypeError(f"a {type(state).__name__}")
        for name, value in state.items():
            _check_tensor(torch, name, value, len(content))
        return {name: to_numpy(value) for name, value in state.items()}
    except Exception as error:  # torch.load has no one error for a file it cannot read.
        reason = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):
            # PyTorch's own words advise to run the code that such a file may hold.
            reason = "unpickling it would need more than tensors, which may run code"
        wanted = "tensor, or a state dict" if one_alone else "state dict"
        raise ValueError(
            f"`path` should be a PyTorch {wanted} of plain tensors. Received: {str(file)!r}, "
            f"which is truncated, of another kind, or holds more than weights: {reason}. Nothing "
            "in it was run; ask its author for a .safetensors file"
        ) from None


def _check_tensor(torch: Any, name: Any, value: Any, size: int) -> None:
    """Refuses what is no tensor under a name, or larger than its file of `size` bytes."""
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        raise TypeError(f"a {type(value).__name__} under {name!r}")
    if value.numel() * value.element_size() > size:
        # A view that repeats its numbers, which would take any amount of memory.
        raise TypeError(f"a tensor larger than the file under {name!r}")
