"""`adapter_config.json` on disk, and the file beside it that holds keras_mpt's own fields."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from keras_mpt.files.atomic import write_together
from keras_mpt.files.state_dict import BIN_NAME, SAFETENSORS_NAME

CONFIG_NAME = "adapter_config.json"
OWN_CONFIG_NAME = "keras_mpt_config.json"


def write_config(
    directory: str | os.PathLike[str], peft_fields: dict[str, Any], own_fields: dict[str, Any]
) -> None:
    """Writes both files, or neither, and not over those of an adapter."""
    weights = [n for n in (SAFETENSORS_NAME, BIN_NAME) if (Path(directory) / n).exists()]
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


def read_config(
    directory: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """PEFT's fields, and ours (`None` where PEFT wrote the directory)."""
    path = Path(directory)
    own_path = path / OWN_CONFIG_NAME
    return read_json(path / CONFIG_NAME), read_json(own_path) if own_path.exists() else None


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
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"`{path.name}` should be JSON. Received: {str(path)!r}, which is broken: {error}"
        ) from None
    if not isinstance(values, dict):
        raise ValueError(
            f"`{path.name}` should be a JSON object. Received: {str(path)!r} with a "
            f"{type(values).__name__}"
        )
    return values


def _json_bytes(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
