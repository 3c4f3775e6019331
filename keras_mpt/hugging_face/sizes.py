"""Sizes in a checkpoint's configuration against how much its files hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_mpt.checks import is_integer, received

# Arguments of keras-hub's backbones that something is made by the size of.
_SIZE = re.compile(r"(^num_|_dim$|_size$|_length$|^head_|^vocabulary)")
# A table of so many numbers is no large model's yet; rotary lengths stand for no table at all.
_HARMLESS = 1 << 31


def check_sizes(arguments: Mapping[str, Any], folder: Path) -> None:
    """Refuses sizes of a backbone that its files cannot have, before it is made.

    Args:
        arguments: mapping of a keras-hub backbone's argument to its value.
        folder: path of a folder with `.safetensors`; a number takes a byte at least.

    Raises:
        ValueError: a size, by its name.
    """
    total = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    width = arguments.get("hidden_dim")
    width = width if is_integer(width, 1) else 1
    # The width first: others are judged by it.
    for name in sorted(arguments, key=lambda name: name != "hidden_dim"):
        value = arguments[name]
        is_layers = name.startswith("num_") and name.endswith("layers")
        limit = total if is_layers else max(total, _HARMLESS)
        if _SIZE.search(name) and is_integer(value, 1) and value * width > limit:
            raise ValueError(
                f"`{name}` should be a size that the weights in the folder have. Received: "
                f"{name}={received(value)} with {total} bytes of weights"
            )
