"""Which models the trainings beside `model.fit` take."""

from __future__ import annotations

from typing import Any

from keras_mpt.config import MultitaskPromptTuningConfig
from keras_mpt.models.prompt_tuned_backbone import PromptTunedBackbone


def check_multitask(argument: str, model: Any) -> None:
    """Refuses what is no prompt-tuned model of tasks that gives logits.

    Args:
        argument: string. What it was given as, for the message.
        model: the model.
    """
    config = getattr(model, "config", None)
    is_multitask = isinstance(config, MultitaskPromptTuningConfig)
    if not is_multitask or isinstance(model, PromptTunedBackbone):
        raise ValueError(
            f"`{argument}` should be a prompt-tuned model with a MultitaskPromptTuningConfig that "
            f"gives logits. Received: a {type(model).__name__} with a {type(config).__name__}"
        )
