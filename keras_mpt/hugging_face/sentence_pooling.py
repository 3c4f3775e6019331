"""How a checkpoint of sentence embeddings is read, by what lies beside its weights."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from keras_mpt.checks import warn_once
from keras_mpt.files.config_files import json_object
from keras_mpt.types import Backbone, Config

# What sentence-transformers writes beside weights.
_SIGNS = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
_POOLING = "1_Pooling"
# Which of its ways are which of ours. A maximum is none of them; the mean is its default.
_WAYS = {"cls": "base", "mean": "mean", "mean_sqrt_len": "mean", "lasttoken": "last"}
_WORDS = {"mean": "the mean of the tokens", "last": "the last token", "base": "the start token"}

# Folders of backbones that were read. keras-hub's own `from_preset` leaves no trace of its.
_folders: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def note_folder(backbone: Backbone, folder: Path) -> None:
    """Notes where a backbone was read.

    Args:
        backbone: a backbone.
        folder: path.
    """
    _folders[backbone] = str(folder)


def warn_of_pooling(backbone: Backbone, chosen: str, others: Iterable[Any]) -> None:
    """Warns, once for each backbone, where its checkpoint was trained to be pooled otherwise.

    Args:
        backbone: a backbone.
        chosen: string. The `pooling` that nobody asked for by name.
        others: where its folder may be noted too, such as a config's fields.
    """
    for folder in (_folders.get(backbone), *others):
        pooling = _pooling_of(folder) if isinstance(folder, str) and folder else None
        if pooling is not None and pooling != chosen:
            text = (
                f"The checkpoint in {folder!r} was trained for sentence embeddings that are "
                f"{_WORDS[pooling]}, and this model reads {_WORDS[chosen]}: give "
                f'`pooling="{pooling}"`, or `pooling="{chosen}"` to keep it so without a warning.'
            )
            warn_once(backbone, "pooling", text, stacklevel=_steps_to_user())
            return


def _pooling_of(folder: str) -> str | None:
    """A folder's own `pooling`; `None` where nothing is said of it, or nothing we have."""
    path = Path(folder)
    try:
        if not any((path / name).is_file() for name in _SIGNS):
            return None
        config = path / _POOLING / "config.json"
        if not config.is_file():
            return "mean"  # What sentence-transformers takes where nothing is said.
        return _WAYS.get(_way(json_object(config.read_bytes(), config)))
    except (OSError, ValueError):  # It is advice alone: a folder of that name may be anything.
        return None


def _way(config: Config) -> str:
    """Sentence-transformers' name of a pooling; of several that are joined, none."""
    given = config.get("pooling_mode")
    if isinstance(given, str):
        return given
    prefix = "pooling_mode_"
    found = [n.removeprefix(prefix) for n, is_on in config.items() if is_on is True]
    ways = [name.removesuffix("_tokens").removesuffix("_token") for name in found]
    return ways[0] if len(ways) == 1 else ""


def _steps_to_user() -> int:
    """How far up the first caller is that is neither ours nor Keras's, for the caller."""
    frame, steps = sys._getframe(1), 1
    while frame.f_back is not None and _package(frame) in ("keras", "keras_mpt"):
        frame, steps = frame.f_back, steps + 1
    return steps


def _package(frame: Any) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
