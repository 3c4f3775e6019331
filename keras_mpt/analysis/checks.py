"""What the functions of this folder ask of a model."""

from __future__ import annotations

from typing import Any

from keras_mpt import checks
from keras_mpt.config import MultitaskPromptTuningConfig
from keras_mpt.models.prompt_tuned_model import PromptTunedModel


def check_model(model: Any) -> None:
    """Refuses what has no prompt."""
    if not isinstance(model, PromptTunedModel):
        raise ValueError(
            "`model` should be a prompt-tuned model, such as `prompt_tune` makes. Received: a "
            f"{type(model).__name__}"
        )


def task_names(model: Any) -> list[str]:
    """The names of the model's tasks, or an error where it has none."""
    check_model(model)
    if not isinstance(model.config, MultitaskPromptTuningConfig):
        raise ValueError(
            "`model` should have tasks, those of a MultitaskPromptTuningConfig. Received: a model "
            f"with a {type(model.config).__name__}"
        )
    return model.config.names


def task_id(model: Any, task: Any) -> int:
    """The id of a task that is given by its name or its id."""
    after = ", or None for the prompt that they share"
    return checks.task_id("task", task, task_names(model), after=after)
