"""Safetensors files with a seal: a text of ours, and a checksum over it and every number.

PEFT, transformers and PyTorch do not look at either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# safetensors' names of dtypes that NumPy has; bfloat16 comes as float32, which holds it exactly.
_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip

# A seal stands in a file's metadata beside its text, by the name of the text and this.
_SEAL = ".sha256"


def sealed(arrays: Mapping[str, np.ndarray], name: str, text: str) -> bytes:
    """A safetensors file, whose bytes depend on nothing but its content.

    Args:
        arrays: mapping of name to array.
        name: string. The name of the text.
        text: string. What else the file shall hold.
    """
    from safetensors.numpy import save

    arrays = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    # "pt" tells transformers and PEFT that the arrays are laid out as PyTorch's.
    metadata = {"format": "pt", name: text, f"{name}{_SEAL}": _seal(arrays, text)}
    content = save(arrays, metadata=metadata)
    # safetensors writes metadata in an order that changes from call to call.
    size, header = _header(content)
    found = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    found += b" " * (-len(found) % 8)
    return len(found).to_bytes(8, "little") + found + content[8 + size :]


def opened(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A safetensors file's arrays, and its texts.

    Args:
        content: bytes.

    Returns:
        Arrays by name, and texts by name: what `sealed` was given, its seal, and those of others.

    Raises:
        ValueError: a file that is truncated, of another kind, or has other content than was sealed.
    """
    import safetensors

    try:
        tensors = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
        arrays = {name: _array(**tensor) for name, tensor in tensors}
        texts = dict(_header(content)[1].get("__metadata__", {}))
    # It has no one error for a file that it cannot read.
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"which is truncated or of another kind: {error}") from None
    for name, seal in texts.items():
        if name.endswith(_SEAL) and seal != _seal(arrays, texts.get(name.removesuffix(_SEAL), "")):
            raise ValueError("which is damaged: its checksum is that of other content")
    return arrays, texts


def is_sealed(texts: Mapping[str, str], name: str) -> bool:
    """Whether a text that `opened` gave was sealed."""
    return f"{name}{_SEAL}" in texts


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """A checksum of arrays: their names, dtypes, shapes and every number, in 64 digits."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        found.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _array(dtype: str, shape: Sequence[int], data: bytes) -> np.ndarray:
    if dtype == "BF16":
        high = np.frombuffer(data, "<u2").astype("uint32") << 16
        return high.view("float32").reshape(shape)
    return np.frombuffer(data, _DTYPES[dtype]).reshape(shape)


def _seal(arrays: Mapping[str, np.ndarray], text: str) -> str:
    return hashlib.sha256(f"{digest(arrays)} {text}".encode()).hexdigest()


def _header(content: bytes) -> tuple[int, dict[str, Any]]:
    """A safetensors file's header, by its size and as an object whose keys are in order."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header.get("__metadata__")
    # The arrays stay in their order, which is that of their numbers.
    return size, header if metadata is None else {
        **header,
        "__metadata__": dict(sorted(metadata.items())),
    }
