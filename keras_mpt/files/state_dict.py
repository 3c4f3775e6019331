"""State dicts in PyTorch's file formats, as NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.files.sealed import opened
from keras_mpt.files.torch_file import read_torch

SAFETENSORS_NAME = "adapter_model.safetensors"
BIN_NAME = "adapter_model.bin"

# What a raw `MultitaskPromptEmbedding.state_dict()` of PEFT calls P.
ALIASES = {"embedding.weight": "prompt_embeddings"}


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads a state dict that PEFT, PyTorch or keras_mpt wrote.

    `.safetensors` needs no PyTorch. `.bin`, `.pt` and `.pth` go through
    `torch.load(weights_only=True)`, which runs no code that a file may carry.

    Args:
        path: string. A file, or an adapter's directory (its `adapter_model.safetensors`, else its
            `adapter_model.bin`).

    Returns:
        `{name: array}`. bfloat16 comes as float32, which holds every bfloat16 exactly.

    Raises:
        ValueError: no such file, an empty, truncated or foreign one, or one of keras_mpt's whose
            checksum is not that of what it holds.
        ImportError: a `.bin`, `.pt` or `.pth` file without PyTorch installed.

    Example:
        ```python
        layer = keras_mpt.PromptEmbedding(num_virtual_tokens=4, token_dim=8)
        safetensors.numpy.save_file(layer.get_peft_state_dict(), tmp_path / "prompt.safetensors")
        state = keras_mpt.read_state_dict(tmp_path / "prompt.safetensors")
        assert state["prompt_embeddings"].shape == (4, 8)
        ```

    Source: PEFT `utils/save_and_load.py`.
    """
    file = _state_file(Path(path))
    return state_and_texts(file.read_bytes(), file)[0]


def state_and_texts(content: bytes, file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What a state dict's file holds, and the texts in it (see `sealed.py`).

    Args:
        content: bytes. The file's.
        file: its path, whose end tells its kind.

    Returns:
        `{name: array}`, and `{name: string}`.

    Raises:
        ValueError, ImportError: as `read_state_dict`.
    """
    if not content:
        raise ValueError(f"`path` should be a state dict. Received: {str(file)!r}, an empty file")
    if file.suffix == ".safetensors":
        try:
            return opened(content)
        except ValueError as error:
            raise ValueError(
                f"`path` should be a safetensors file. Received: {str(file)!r}, {error}"
            ) from None
    if file.suffix in (".bin", ".pt", ".pth"):
        return read_torch(content, file), {}
    raise ValueError(
        "`path` should end in .safetensors, .bin, .pt or .pth, or be an adapter's directory. "
        f"Received: path={str(file)!r}"
    )


def checked_values(
    state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], source: str
) -> dict[str, np.ndarray]:
    """The arrays of `state` as float32, after checking each against the shape that it should have.

    Args:
        state: mapping of name to array.
        shapes: mapping of every name that `state` should hold to its shape.
        source: string. Where `state` comes from, for messages.

    Returns:
        `{name: float32 array}`.

    Raises:
        ValueError: missing or unknown names, another shape, dtype, or values that are not finite.
    """
    state = by_own_names(state)
    missing = sorted(set(shapes) - set(state))
    unknown = sorted(set(state) - set(shapes))
    if missing or unknown:
        raise ValueError(
            f"`{source}` should hold {sorted(shapes)}. Received: {source} without {missing} and "
            f"with unknown {unknown}"
        )
    return {name: checked_array(name, state[name], shapes[name], source) for name in shapes}


def by_own_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with P under the name that an adapter has for it."""
    return {ALIASES.get(name, name): value for name, value in state.items()}


def checked_array(name: str, value: Any, shape: tuple[int, ...], source: str) -> np.ndarray:
    """One array as float32, after checking it."""
    array = to_numpy(value)
    check_shape(name, array.shape, shape, source)
    if array.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise ValueError(
            f"`{name}` in `{source}` should be float32, float64, float16 or bfloat16. Received: "
            f"{name} of dtype {array.dtype}"
        )
    array = array.astype("float32")
    if not np.isfinite(array).all():
        raise ValueError(
            f"`{name}` in `{source}` should be finite. Received: {name} with "
            f"{int((~np.isfinite(array)).sum())} values that are not"
        )
    return array


def check_shape(name: str, found: tuple[int, ...], shape: tuple[int, ...], source: str) -> None:
    """Refuses an array of another shape."""
    if found != shape:
        raise ValueError(
            f"`{name}` in `{source}` should have shape {shape}. Received: {name} of shape {found}"
        )


def _state_file(path: Path) -> Path:
    if path.is_dir():
        for name in (SAFETENSORS_NAME, BIN_NAME):
            if (path / name).is_file():
                return path / name
        raise ValueError(
            f"`path` should be a directory with {SAFETENSORS_NAME} or {BIN_NAME}. Received: "
            f"path={str(path)!r}, which has neither"
        )
    if not path.is_file():
        raise ValueError(
            f"`path` should be a file or an adapter's directory. Received: no such file: "
            f"{str(path)!r}"
        )
    return path
