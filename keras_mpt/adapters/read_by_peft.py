"""What PEFT makes something else of, in an adapter that it opens without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_mpt.config import PromptTuningConfig


def read_differently(config: PromptTuningConfig, head_settings: Mapping[str, Any]) -> str | None:
    """How PEFT will read a model's adapter otherwise than the model, and what to do about it.

    Args:
        config: the model's config.
        head_settings: what its head is built with.

    Returns:
        A sentence, or `None` where PEFT's logits are the model's.
    """
    found = []
    where = {"after_start": "after the start token", "after": "after the text"}
    if config.prompt_position in where:
        found.append(
            f"it puts prompts before all tokens, this model {where[config.prompt_position]} "
            "(prompt_position='before' in the config is PEFT's way)"
        )
    classes = head_settings.get("num_classes")
    if isinstance(classes, list) and len(classes) > 1:
        found.append(
            f"it has one head for all tasks, of {sum(classes)} classes here (`num_classes` as one "
            "int is such a head; `fold` gives one task with its own)"
        )
    pooling = head_settings.get("pooling")
    if pooling == "mean":
        found.append("it has no mean over tokens (pooling='base' or 'last' is transformers' way)")
    if pooling == "last":
        found.append("it classifies the last position, be it padding (pad rows on the left for it)")
    if config.submodules > 1:
        found.append(
            "its `generate` leaves the decoder's prompts out (num_transformer_submodules=1 in the "
            "config makes none)"
        )
    if not found:
        return None
    return (
        f"PEFT will read this adapter differently: {'; '.join(found)}. keras_mpt reads it as it is."
    )
