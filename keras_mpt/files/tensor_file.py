"""One tensor alone in a file, in the formats that servers of prompts read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from keras_mpt.checks import check_choice
from keras_mpt.files.state_dict import checked_array, state_and_texts
from keras_mpt.files.torch_file import read_torch

SUFFIXES = (".pt", ".safetensors", ".npy")
_DTYPES = ("float32", "float16", "bfloat16")
_TORCH = (".pt", ".pth", ".bin")

# A safetensors file names its tensor. PEFT's name, by which TGIS finds it too.
_NAME = "prompt_embeddings"


def check_format(suffix: str, dtype: str) -> None:
    """Refuses a dtype that a file cannot have, and a file that cannot be written here.

    Args:
        suffix: string. One of `SUFFIXES`.
        dtype: string. What the caller's `dtype` was given.

    Raises:
        ValueError: another dtype.
        ImportError: a `.pt` file without PyTorch installed.
    """
    # NumPy has no bfloat16 of its own: a file of it would open as bytes.
    check_choice("dtype", dtype, _DTYPES[:2] if suffix == ".npy" else _DTYPES)
    if suffix in _TORCH:
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"Writing a {suffix} file needs PyTorch: `pip install keras-mpt[torch]`, or give a "
                "`path` that ends in .safetensors or .npy, which need none."
            ) from error


def tensor_bytes(array: np.ndarray, suffix: str, dtype: str) -> bytes:
    """The file of one tensor.

    Args:
        array: float32 array.
        suffix: string. One of `SUFFIXES`.
        dtype: string. That of the tensor in the file, as `check_format` lets it through.

    Raises:
        ValueError: numbers that the dtype cannot hold.
    """
    array = np.ascontiguousarray(array)
    rounded = _rounded(array, dtype)
    if suffix == ".safetensors":
        from safetensors.numpy import save

        return save({_NAME: rounded}, metadata={"format": "pt"})
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, rounded, allow_pickle=False)
    else:
        import torch

        torch.save(torch.from_numpy(array).to(getattr(torch, dtype)), buffer)
    return buffer.getvalue()


def read_tensor(path: Path) -> np.ndarray:
    """The one tensor in a file.

    Args:
        path: path of a file that ends in .pt, .pth, .bin, .safetensors or .npy.

    Returns:
        A float32 array (L, d), whatever float dtype the file has.

    Raises:
        ValueError: no such file, a broken or foreign one, one with several tensors, or a tensor of
            another rank or dtype, or with values that are not finite.
        ImportError: a .pt, .pth or .bin file without PyTorch installed.
    """
    if not path.is_file():
        raise ValueError(f"`path` should be a file. Received: no such file: {str(path)!r}")
    if path.suffix == ".npy":
        return _checked(_read_npy(path), path)
    content = path.read_bytes()
    is_torch = path.suffix in _TORCH and content
    state = read_torch(content, path, True) if is_torch else state_and_texts(content, path)[0]
    if len(state) != 1:
        raise ValueError(
            "`path` should be a file of one tensor; `keras_mpt.load_adapter` opens an adapter. "
            f"Received: path={str(path)!r} with {sorted(state)[:8]}"
        )
    return _checked(next(iter(state.values())), path)


def _rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        import ml_dtypes  # Keras itself requires it.

        rounded = array.astype(ml_dtypes.bfloat16)
    else:
        with np.errstate(over="ignore"):
            rounded = array.astype(dtype)
    if not np.isfinite(rounded.astype("float32")).all():
        raise ValueError(
            f"`dtype` should hold numbers as large as {np.abs(array).max():.3g}, as 'float32' "
            f"does. Received: dtype={dtype!r}"
        )
    return rounded


def _read_npy(path: Path) -> np.ndarray:
    try:
        # Mapped, so that a header cannot ask for more memory than the file has numbers.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # NumPy has no one error for a file it cannot read.
        raise ValueError(
            f"`path` should be an array of numbers, as `np.save` writes it. Received: "
            f"{str(path)!r}, which is truncated or of another kind: {error}"
        ) from None


def _checked(array: np.ndarray, path: Path) -> np.ndarray:
    if array.ndim != 2 or not array.size:
        raise ValueError(
            "`path` should hold one prompt's tensor, of shape (tokens, width). Received: "
            f"path={str(path)!r} with a tensor of shape {array.shape}"
        )
    return checked_array("prompt", array, array.shape, str(path))
