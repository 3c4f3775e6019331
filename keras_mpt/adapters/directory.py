"""A prompt-tuned model's trained weights as a PEFT adapter directory, and back."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_mpt.adapters.backbone_identity import backbone_difference, backbone_identity
from keras_mpt.adapters.base_of_peft import warn_of_other_base
from keras_mpt.adapters.card import CardParts, model_card
from keras_mpt.adapters.differences import config_difference, head_difference
from keras_mpt.adapters.measured import Measured
from keras_mpt.adapters.read_by_peft import read_differently
from keras_mpt.adapters.reading import Adapter
from keras_mpt.adapters.weights_of_base import without_base
from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_flag, received, shown, warn_once
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_labels import LABEL_FIELDS
from keras_mpt.config_values import START_DONE, TASKS_START_DONE
from keras_mpt.files.adapter_files import write_adapter
from keras_mpt.files.card_file import marked
from keras_mpt.files.config_files import OWN_CONFIG_NAME
from keras_mpt.files.sealed import digest
from keras_mpt.files.state_dict import checked_values
from keras_mpt.processes import is_writer
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.types import Backbone, Config

# P's name in an adapter file; its numbers there are `embedding_scale.py`'s subject.
PROMPT = "prompt_embeddings"


@dataclasses.dataclass(frozen=True)
class AdapterParts:
    """What of a model an adapter is made of.

    Attributes:
        config: the model's config.
        prompt: the layer with its prompts.
        backbone: the backbone that these were trained on.
        embedding_scale: float array (M·L, 1). What P in a file is larger by than P in the model.
        head_weights: dict of the head's variables by the name that they have in an adapter.
        head_settings: dict of what the head is built with, as JSON values.
        model: string. The name of the model's class.
        is_masked: bool. Whether it is a masked language model.
        measured: what `evaluate` gave of these weights, or `None`.
    """

    config: PromptTuningConfig
    prompt: Prompt
    backbone: Backbone
    embedding_scale: np.ndarray
    head_weights: Mapping[str, keras.Variable]
    head_settings: Config
    model: str
    is_masked: bool
    measured: Measured | None


def save(parts: AdapterParts, directory: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Writes an adapter; see `PromptTunedModel.save_adapter`."""
    overwrite = check_flag("overwrite", overwrite)
    state = {**parts.prompt.get_peft_state_dict(), **_head_state(parts)}
    state[PROMPT] = state[PROMPT] * parts.embedding_scale
    _check_finite(state)
    config, identity = _saved_config(parts), backbone_identity(parts.backbone)
    peft_fields, own_fields = config.split_fields()
    own_fields |= {**parts.head_settings, "backbone": identity}
    if not is_writer():  # Of several processes; all have come so far, where weights are spread.
        return
    card = marked(model_card(_card_parts(parts, config, identity, state)))
    write_adapter(directory, peft_fields, own_fields, state, overwrite, card)
    text = read_differently(parts.config, parts.head_settings)
    if text is not None:
        warn_once(parts.prompt, "read by PEFT", text, stacklevel=3)


def load(parts: AdapterParts, adapter: Adapter) -> None:
    """Loads an adapter that was read; see `PromptTunedModel.load_adapter`."""
    _check_fits(parts, adapter.config, adapter.own_fields, adapter.source)
    warn_of_other_base(parts.backbone, adapter.config.base_model_name_or_path)
    head = parts.head_weights
    shapes = {name: tuple(v.shape) for name, v in parts.prompt.named_weights().items()}
    shapes |= {name: saved_shape(variable) for name, variable in head.items()}
    state = without_base(adapter.state, shapes, parts.backbone, adapter.source)
    values = checked_values(state, shapes, adapter.source)
    values[PROMPT] = values[PROMPT] / parts.embedding_scale
    for name, variable in {**parts.prompt.named_weights(), **head}.items():
        is_kernel = name in head and len(variable.shape) == 2
        variable.assign(values[name].T if is_kernel else values[name])


def _card_parts(
    parts: AdapterParts, config: PromptTuningConfig, identity: Config, state: dict[str, np.ndarray]
) -> CardParts:
    names = {PROMPT: "P", "prefix_task_cols": "factors", "prefix_task_rows": "factors"}
    numbers: dict[str, int] = {}
    for name, value in state.items():
        part = names.get(name, "head")
        numbers[part] = numbers.get(part, 0) + value.size
    return CardParts(
        config=config,
        head_settings=parts.head_settings,
        model=parts.model,
        is_masked=parts.is_masked,
        backbone=identity,
        numbers=numbers,
        weights=digest(state),
        measured=parts.measured,
    )


def _head_state(parts: AdapterParts) -> dict[str, np.ndarray]:
    """The head's weights as PyTorch lays them out: a kernel (in, out) is a weight (out, in)."""
    arrays = {name: to_numpy(v) for name, v in parts.head_weights.items()}
    return {name: a.T if a.ndim == 2 else a for name, a in arrays.items()}


def saved_shape(variable: keras.Variable) -> tuple[int, ...]:
    """The shape that a head's variable has in a file."""
    shape = tuple(variable.shape)
    return shape[::-1] if len(shape) == 2 else shape


def _saved_config(parts: AdapterParts) -> PromptTuningConfig:
    """The config as it is written: with all sizes, and with the start done.

    PEFT runs a start again when it opens an adapter that names a source file, and does not know
    all of ours. The weights hold the result, so RANDOM is written, which needs nothing.
    """
    config, backbone = parts.config, parts.backbone
    changes: Config = {
        "inference_mode": True,  # As PEFT saves it; `load_adapter` trains on all the same.
        "num_transformer_submodules": config.submodules,
        "num_attention_heads": config.num_attention_heads or _attention_heads(backbone),
        "num_layers": config.num_layers or getattr(backbone, "num_layers", None),
        **(TASKS_START_DONE if isinstance(config, MultitaskPromptTuningConfig) else START_DONE),
    }
    head_modules = sorted({name.split(".")[1] for name in parts.head_weights})
    changes["modules_to_save"] = config.modules_to_save or head_modules or None
    return dataclasses.replace(config, **changes)


def _attention_heads(backbone: Backbone) -> int | None:
    return getattr(backbone, "num_heads", None) or getattr(backbone, "num_query_heads", None)


def _check_fits(
    parts: AdapterParts, config: PromptTuningConfig, own: Mapping[str, Any], source: str
) -> None:
    """Refuses an adapter that is for another model, by the name of the first difference."""
    difference = config_difference(parts.config, config)
    if difference is None:
        _check_names(parts.config, config, source)
        difference = head_difference(parts.head_settings, own)
    if difference is not None:
        name, wanted, found = difference
        raise ValueError(
            f"`{name}` of the adapter should be the model's, {shown(wanted)}; "
            "`keras_mpt.load_adapter(backbone, directory)` builds a model that fits it. "
            f"Received: {name}={shown(found)} in {source!r}"
        )
    other_backbone = backbone_difference(own.get("backbone"), parts.backbone)
    if other_backbone is not None:
        raise ValueError(
            "The model's backbone should be the one that the adapter was trained on; without "
            f"`backbone` in its {OWN_CONFIG_NAME} any will do. Received: {source!r}, trained on "
            f"{other_backbone}"
        )


def _check_names(
    config: PromptTuningConfig, adapter_config: PromptTuningConfig, source: str
) -> None:
    """Refuses tasks or classes of other names, where both sides have some."""
    for field in ("task_names", *LABEL_FIELDS):
        names, found = (getattr(c, field, None) for c in (config, adapter_config))
        if names and found and names != found:
            raise ValueError(
                f"`{field}` of the adapter should be the model's, {received(names)}. Received: "
                f"{field}={received(found)} in {source!r}"
            )


def _check_finite(state: dict[str, np.ndarray]) -> None:
    """Refuses to replace what may be good by what could not be loaded again."""
    for name, value in state.items():
        wrong = int((~np.isfinite(value)).sum())
        if wrong:
            raise ValueError(
                f"`{name}` should be finite to be saved, so nothing was written. Received: {name} "
                f"with {wrong} values that are not"
            )
