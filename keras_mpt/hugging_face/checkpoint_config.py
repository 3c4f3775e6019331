"""A checkpoint's `config.json` as keras-hub's converters read it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_mpt.files.config_files import read_json
from keras_mpt.types import Config

CONFIG_NAME = "config.json"
# The text model of a checkpoint that has images as well, saved by itself.
_TEXT_ONLY = {"qwen3_5_text": "qwen3_5", "qwen3_5_moe_text": "qwen3_5_moe"}


def read_checkpoint_config(folder: Path) -> Config:
    """The configuration of a folder, with what transformers 5 writes under another name.

    Args:
        folder: path. A local folder.

    Returns:
        A dict.

    Raises:
        ValueError: no such file, or a broken one.
    """
    if not (folder / CONFIG_NAME).is_file():
        raise ValueError(
            f"`folder` should be a folder with a {CONFIG_NAME}. Received: folder={str(folder)!r}, "
            "which has none"
        )
    config = read_json(folder / CONFIG_NAME)
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise ValueError(
            f"`model_type` should be a string in {CONFIG_NAME}. Received: model_type={kind!r} in "
            f"{str(folder / CONFIG_NAME)!r}"
        )
    config["model_type"] = _TEXT_ONLY.get(kind, kind)
    if "encoder_layers" in config:
        config.setdefault("num_hidden_layers", config["encoder_layers"])
    if "num_local_experts" in config:
        config.setdefault("num_experts", config["num_local_experts"])
    rope = config.get("rope_parameters")
    if config.get("rope_scaling") is None and rope_type(rope) not in (None, "default"):
        config["rope_scaling"] = rope
    return config


def copied(config: Config) -> Config:
    """A config of its own for a converter: some of them change what they are given."""
    return copy.deepcopy(config)


def rope_type(rope: Any) -> str | None:
    """The kind of rotary positions; `None` where there is one for each kind of layer, or none."""
    if not isinstance(rope, Mapping):
        return None
    return rope.get("rope_type", rope.get("type"))


def sides(config: Config) -> dict[str, Config]:
    """The configuration of each side of a model by what its layers' names begin with.

    `""` is all of a model that has one side.
    """
    if isinstance(config.get("encoder"), Mapping) and isinstance(config.get("decoder"), Mapping):
        return {side: text_part(config[side]) for side in ("encoder", "decoder")}
    return {"": text_part(config)}


def text_part(config: Config) -> Config:
    """What a configuration says of text, where it is for images as well."""
    part = config.get("text_config")
    return {**config, **part} if isinstance(part, Mapping) else config


def is_tied(config: Config) -> bool:
    """Whether the token table gives a model's logits too, as transformers' default is."""
    said = config.get("tie_word_embeddings", text_part(config).get("tie_word_embeddings"))
    return said is not False
