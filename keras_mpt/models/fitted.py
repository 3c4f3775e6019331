"""A config and its prompt layer, fitted to a backbone."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.fitting.other_names import check_config
from keras_mpt.prompts.multitask_prompt_embedding import MultitaskPromptEmbedding
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.prompts.prompt_embedding import PromptEmbedding
from keras_mpt.prompts.starts import start_values
from keras_mpt.splicing.positions import default_prompt_position
from keras_mpt.splicing.splice import Splice
from keras_mpt.types import Backbone, Tokenizer


def config_for_task(config: PromptTuningConfig, task_type: TaskType | None) -> PromptTuningConfig:
    """The config with the model's task type: PEFT chooses M, and the model that it opens, by it."""
    check_config(config)
    if task_type is None or config.task_type == task_type:
        return config
    if config.task_type is not None:
        raise ValueError(
            f"`task_type` should be '{task_type}' or None for this model. Received: "
            f"task_type='{config.task_type}'"
        )
    return dataclasses.replace(config, task_type=task_type)


def fitted(
    config: PromptTuningConfig, backbone: Backbone, task_type: TaskType | None
) -> tuple[PromptTuningConfig, Splice]:
    """The config with what the backbone decides filled in, and how prompts enter the backbone."""
    position = config.prompt_position or default_prompt_position(backbone)
    if position == "after" and task_type != TaskType.CAUSAL_LM:
        raise ValueError(
            "`prompt_position` should be 'before', 'after_start' or None but for causal language "
            "models, in which a text's states do not depend on what comes after it. Received: "
            f"prompt_position='after' for a model of task_type={str(task_type)!r}"
        )
    assert config.num_virtual_tokens is not None
    splice = Splice(backbone, config.num_virtual_tokens, config.submodules, position)
    if config.token_dim not in (None, splice.token_dim):
        raise ValueError(
            f"`token_dim` should be the width of the backbone's token embedding, "
            f"{splice.token_dim}, or None. Received: token_dim={config.token_dim}"
        )
    limit = splice.max_sequence_length
    if limit is not None and splice.num_virtual_tokens >= limit:
        raise ValueError(
            f"`num_virtual_tokens` should leave room for tokens in the backbone's {limit} "
            f"positions. Received: num_virtual_tokens={splice.num_virtual_tokens}"
        )
    sizes: dict[str, Any] = {"token_dim": splice.token_dim, "prompt_position": position}
    return dataclasses.replace(config, **sizes), splice


def prompt_layer(config: PromptTuningConfig, backbone: Backbone) -> Prompt:
    """The built layer of a fitted config's prompts."""
    dtype = _prompt_dtype(backbone)
    sizes: dict[str, Any] = {
        "num_virtual_tokens": config.num_virtual_tokens,
        "token_dim": config.token_dim,
        "num_transformer_submodules": config.submodules,
    }
    layer: Prompt
    if isinstance(config, MultitaskPromptTuningConfig):
        layer = MultitaskPromptEmbedding(
            num_tasks=config.num_tasks,
            num_ranks=config.num_ranks,
            task_init=config.task_init,
            train_shared=config.train_shared,
            **sizes,
            name="prompt",
            dtype=dtype,
        )
    else:
        layer = PromptEmbedding(**sizes, name="prompt", dtype=dtype)
    layer.build((None,))  # With a shape, for `summary` to show what comes out.
    return layer


def start_prompt(
    prompt: Prompt,
    config: PromptTuningConfig,
    splice: Splice,
    embedding_scale: np.ndarray,
    tokenizer: Tokenizer | None,
) -> None:
    """Gives a layer the start that a fitted config asks for.

    Args:
        prompt: the built layer.
        config: the fitted config.
        splice: the model's splice.
        embedding_scale: float array (M·L, 1). What P in a source file is larger by.
        tokenizer: a keras-hub tokenizer for a TEXT start, or `None`.
    """

    def embed_tokens(ids: np.ndarray) -> np.ndarray:
        rows = [ops.convert_to_tensor(row, "int32") for row in ids]
        embedded = [splice.embed_tokens(row, i) for i, row in enumerate(rows)]
        return np.stack([to_numpy(e).astype("float32") for e in embedded])

    values = start_values(
        config, embed_tokens, splice.vocabulary_size, splice.token_dim, tokenizer, embedding_scale
    )
    prompt.set_peft_state_dict(values, "start")


def _prompt_dtype(backbone: Backbone) -> str | keras.DTypePolicy:
    """The backbone's compute dtype over float32 variables: a half-precision prompt trains badly."""
    compute = backbone.compute_dtype
    is_half = compute in ("float16", "bfloat16")
    return keras.DTypePolicy(f"mixed_{compute}") if is_half else compute
