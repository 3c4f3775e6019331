"""A prompt-tuned model's trained weights as a PEFT adapter directory, and back."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_mpt.adapters.backbone_identity import backbone_identity, misfit
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_values import START_DONE, TASKS_START_DONE
from keras_mpt.files.atomic import write_together
from keras_mpt.files.config_files import (
    CONFIG_NAME,
    OWN_CONFIG_NAME,
    config_bytes,
    read_config,
)
from keras_mpt.files.state_dict import (
    BIN_NAME,
    SAFETENSORS_NAME,
    checked_values,
    read_state_dict,
)

# P's name in an adapter file; its numbers there are `embedding_scale.py`'s subject.
PROMPT = "prompt_embeddings"


def save(model: Any, directory: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Writes a model's adapter; see `PromptTunedModel.save_adapter`."""
    from safetensors.numpy import save as safetensors_bytes

    target = Path(directory)
    names = (CONFIG_NAME, OWN_CONFIG_NAME, SAFETENSORS_NAME, BIN_NAME)
    existing = [name for name in names if (target / name).exists()]
    if existing and not overwrite:
        raise ValueError(
            "`directory` should hold no adapter yet, or `overwrite` be True. Received: "
            f"directory={str(target)!r} with {existing}"
        )
    state = {**model.prompt.state_dict(), **_head_state(model)}
    state[PROMPT] = state[PROMPT] * model.file_scale
    state = {name: np.ascontiguousarray(value) for name, value in state.items()}
    _check_finite(state)
    peft_fields, own_fields = _saved_config(model).split_fields()
    # "pt" tells transformers and PEFT that the arrays are laid out as PyTorch's.
    files = {SAFETENSORS_NAME: safetensors_bytes(state, metadata={"format": "pt"})}
    own_fields |= {**model.adapter_extras(), "backbone": backbone_identity(model.backbone)}
    files |= config_bytes(peft_fields, own_fields)
    write_together(target, files)
    # Only now: until the new weights stand there, these are the adapter.
    (target / BIN_NAME).unlink(missing_ok=True)


def load_into(model: Any, directory: str | os.PathLike[str]) -> None:
    """Loads an adapter into a model; see `PromptTunedModel.load_adapter`."""
    config = PromptTuningConfig.from_pretrained(directory)
    own = read_config(directory)[1] or {}
    _check_config(model.config, config, str(directory))
    _check_head(model.adapter_extras(), own, str(directory))
    _check_backbone(own.get("backbone"), model.backbone, str(directory))
    head = model.head_weights()
    shapes = {name: tuple(v.shape) for name, v in model.prompt.named_weights().items()}
    shapes |= {name: _saved_shape(variable) for name, variable in head.items()}
    values = checked_values(read_state_dict(directory), shapes, str(directory))
    values[PROMPT] = values[PROMPT] / model.file_scale
    for name, variable in {**model.prompt.named_weights(), **head}.items():
        is_kernel = name in head and len(variable.shape) == 2
        variable.assign(values[name].T if is_kernel else values[name])


def _head_state(model: Any) -> dict[str, np.ndarray]:
    """The head's weights as PyTorch lays them out: a kernel (in, out) is a weight (out, in)."""
    arrays = {name: ops.convert_to_numpy(v) for name, v in model.head_weights().items()}
    return {name: a.T if a.ndim == 2 else a for name, a in arrays.items()}


def _saved_shape(variable: Any) -> tuple[int, ...]:
    shape = tuple(variable.shape)
    return shape[::-1] if len(shape) == 2 else shape


def _saved_config(model: Any) -> PromptTuningConfig:
    """The config as it is written: with all sizes, and with the start done.

    PEFT runs a start again when it opens an adapter that names a source file, and does not know
    all of ours. The weights hold the result, so RANDOM is written, which needs nothing.
    """
    config, backbone = model.config, model.backbone
    changes = {
        "inference_mode": True,  # As PEFT saves it; `load_adapter` trains on all the same.
        "num_transformer_submodules": config.submodules,
        "num_attention_heads": config.num_attention_heads or _attention_heads(backbone),
        "num_layers": config.num_layers or getattr(backbone, "num_layers", None),
        **(TASKS_START_DONE if isinstance(config, MultitaskPromptTuningConfig) else START_DONE),
    }
    head_modules = sorted({name.split(".")[1] for name in model.head_weights()})
    changes["modules_to_save"] = config.modules_to_save or head_modules or None
    return dataclasses.replace(config, **changes)


def _attention_heads(backbone: Any) -> int | None:
    return getattr(backbone, "num_heads", None) or getattr(backbone, "num_query_heads", None)


_SIZES = (
    "num_virtual_tokens",
    "num_transformer_submodules",
    "token_dim",
    "num_tasks",
    "num_ranks",
)


def _check_config(
    config: PromptTuningConfig, adapter_config: PromptTuningConfig, source: str
) -> None:
    """Refuses an adapter of another kind or size, by the name of the field that differs."""
    for name in ("peft_type", "task_type", "prompt_position", *_SIZES):
        wanted, found = getattr(config, name, None), getattr(adapter_config, name, None)
        if name == "num_transformer_submodules":
            wanted, found = config.submodules, adapter_config.submodules
        if found is not None and found != wanted and not (name == "task_type" and wanted is None):
            raise _misfit(name, wanted, found, source)
    names = getattr(config, "task_names", None)
    found_names = getattr(adapter_config, "task_names", None)
    if names and found_names and names != found_names:
        raise ValueError(
            f"`task_names` of the adapter should be the model's, {names}. Received: "
            f"task_names={found_names} in {source!r}"
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


def _check_backbone(identity: dict[str, Any] | None, backbone: Any, source: str) -> None:
    """Refuses another backbone of the same width. PEFT's adapters do not say what they were on."""
    difference = None if identity is None else misfit(identity, backbone)
    if difference is not None:
        raise ValueError(
            "The model's backbone should be the one that the adapter was trained on; without "
            f"`backbone` in its {OWN_CONFIG_NAME} any will do. Received: {source!r}, trained on "
            f"{difference}"
        )


def _check_head(extras: dict[str, Any], own: dict[str, Any], source: str) -> None:
    """Refuses the weights of another head, which may have the same shapes: classes of [2, 3] and
    [3, 2], or a mean over tokens and a start token. PEFT's adapters say nothing of it."""
    for name, wanted in extras.items():
        if name in own and own[name] != wanted:
            raise _misfit(name, wanted, own[name], source)


def _misfit(name: str, wanted: Any, found: Any, source: str) -> ValueError:
    return ValueError(
        f"`{name}` of the adapter should be the model's, {_shown(wanted)}; "
        "`keras_mpt.load_adapter(backbone, directory)` builds a model that fits it. "
        f"Received: {name}={_shown(found)} in {source!r}"
    )


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
