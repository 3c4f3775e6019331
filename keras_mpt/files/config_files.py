"""`adapter_config.json` on disk, and the file beside it that holds keras_mpt's own fields."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from keras_mpt.files.atomic import write_together
from keras_mpt.files.paths import check_target
from keras_mpt.files.state_dict import BIN_NAME, SAFETENSORS_NAME

CONFIG_NAME = "adapter_config.json"
OWN_CONFIG_NAME = "keras_mpt_config.json"

# No config is larger or deeper: a name for each of a million tasks is less.
_LARGEST, _DEEPEST = 1 << 26, 50


def write_config(
    directory: str | os.PathLike[str], peft_fields: dict[str, Any], own_fields: dict[str, Any]
) -> None:
    """Writes both files, or neither, and not over those of an adapter."""
    target = check_target("directory", directory)
    weights = [n for n in (SAFETENSORS_NAME, BIN_NAME) if (target / n).exists()]
    if weights:
        raise ValueError(
            "`save_directory` should hold no adapter's weights: another config could not read "
            f"them. Received: save_directory={str(directory)!r} with {weights}"
        )
    write_together(directory, config_bytes(peft_fields, own_fields))


def config_bytes(peft_fields: dict[str, Any], own_fields: dict[str, Any]) -> dict[str, bytes]:
    """The two files' contents by name."""
    return {
        CONFIG_NAME: _json_bytes(peft_fields),
        OWN_CONFIG_NAME: _json_bytes(own_fields),
    }


def keep_known(values: dict[str, Any], known: set[str], class_name: str) -> dict[str, Any]:
    """`values` without the keys that this version does not know, which are warned of."""
    unknown = sorted(set(values) - known)
    if unknown:
        warnings.warn(
            f"{CONFIG_NAME} has fields that {class_name} does not know; they are left out: "
            f"{unknown}. A newer PEFT may have written them.",
            stacklevel=3,
        )
    return {k: v for k, v in values.items() if k in known}


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    if not path.is_file():  # A directory of that name included.
        raise ValueError(
            f"`{path.name}` should be a file in the adapter's directory. Received: no such file: "
            f"{str(path)!r}"
        )
    with open(path, "rb") as file:
        return json_object(file.read(_LARGEST + 1), path)


def json_object(content: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in a file's content.

    Args:
        content: bytes.
        path: the file's, for messages.

    Raises:
        ValueError: what is no JSON, or another thing than an object; a nest too deep, a number too
            long or a file too large to be a config.
    """
    try:
        if len(content) > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        values = json.loads(content.decode("utf-8"))
        if _depth(values) > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"`{path.name}` should be JSON. Received: {str(path)!r}, which is broken: {error}"
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f"`{path.name}` should be a JSON object. Received: {str(path)!r} with a "
            f"{type(values).__name__}"
        )
    return values


def _depth(values: Any) -> int:
    """How many levels a nest has."""
    depth, level = 0, [values]
    while level := [v for v in level if isinstance(v, (dict, list))]:
        depth += 1
        level = [i for v in level for i in (v.values() if isinstance(v, dict) else v)]
    return depth


def _json_bytes(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
