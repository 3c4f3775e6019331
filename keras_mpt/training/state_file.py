"""The file that holds a run's state: JSON values and arrays, under one checksum."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpt.checks import is_integer
from keras_mpt.files.atomic import write_together
from keras_mpt.files.config_files import json_object
from keras_mpt.files.sealed import is_sealed, opened, sealed

# One file, so that it is replaced in one step: JSON stands in the header of the safetensors.
FILE_NAME = "training_state.safetensors"
_HEADER, _FORMAT = "keras_mpt", 1

# What a state says beside its arrays.
_COUNTS = ("epoch", "step", "mix_epoch")


def write_state(
    directory: str | os.PathLike[str], about: dict[str, Any], values: dict[str, np.ndarray]
) -> None:
    """Writes a state in place of the older one, whole or not at all.

    Args:
        directory: string. Made where it is missing.
        about: JSON values.
        values: arrays by name.
    """
    text = json.dumps({"format": _FORMAT, "has_checksum": True, **about})
    write_together(directory, {FILE_NAME: sealed(values, _HEADER, text)})


def read_state(
    directory: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Reads what `write_state` wrote; `None` where it wrote nothing.

    Args:
        directory: string.

    Raises:
        ValueError: a file that is truncated, damaged or of another kind.
    """
    file = Path(directory) / FILE_NAME
    if not file.exists():
        return None
    try:
        values, texts = opened(file.read_bytes())
        about = json_object(texts[_HEADER].encode(), file)
        if about["format"] != _FORMAT:
            raise ValueError(f"its format is {about['format']}, not {_FORMAT}")
        if about.get("has_checksum", False) is not is_sealed(texts, _HEADER):
            raise ValueError("its checksum is missing")
        _check(about)
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).removeprefix("which is ").removeprefix("truncated or of another kind: ")
        raise ValueError(
            "`directory` should hold a whole state of a run, or none. Received: "
            f"{str(file)!r}, which is truncated or of another kind ({reason}). Without that file "
            "the run starts anew"
        ) from None
    return about, values


def _check(about: dict[str, Any]) -> None:
    """Refuses fields of another type."""
    for name in _COUNTS:
        if not is_integer(about[name], 0, 1 << 31):
            raise ValueError(f"`{name}` is {about[name]!r}")
    if not isinstance(about["stopped"], bool):
        raise ValueError(f"`stopped` is {about['stopped']!r}")
    if not isinstance(about["run"], dict):
        raise ValueError(f"`run` is a {type(about['run']).__name__}")
    if not isinstance(about["logs"], list) or not all(map(_is_log, about["logs"])):
        raise ValueError("`logs` are no list of epochs and their logs")


def _is_log(value: Any) -> bool:
    """Whether it is an epoch and its logs, which may be lists, and NaN."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and is_integer(value[0], 0)
        and isinstance(value[1], dict)
    )
