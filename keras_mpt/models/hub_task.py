"""keras-hub's tasks with a head of their own, under which prompts are put."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt.config import PromptTuningConfig
from keras_mpt.heads.head import FrozenHead
from keras_mpt.models.arguments import hub_model
from keras_mpt.splicing.cut import building_on, cut_head
from keras_mpt.splicing.positions import task_class
from keras_mpt.types import Backbone, Config, Task


def hub_task(name: str, backbone: Backbone, head_config: Config | None) -> tuple[Task, keras.Model]:
    """keras-hub's language model on a backbone, and the part of it after the backbone.

    Args:
        name: "CausalLM", "Seq2SeqLM" or "MaskedLM".
        backbone: a `keras_hub.models.Backbone`.
        head_config: dict. Further arguments of the task, or `None`.

    Raises:
        ValueError: a backbone that keras-hub has no such task for.
    """
    found = task_class(name, backbone)
    if found is None:
        raise ValueError(
            f"`backbone` should be one that keras-hub has a {name} for. Received: a "
            f"{type(backbone).__name__}"
        )
    given = {"preprocessor": None, "compile": False}
    with building_on(backbone):
        task = hub_model(found, head_config, backbone=backbone, **given)
        return task, cut_head(task)


def from_hub_task(cls: Any, task: Task, config: PromptTuningConfig, **kwargs: Any) -> Any:
    """A prompt-tuned model on a keras-hub task, with that task's head, arguments and preprocessor.

    Args:
        cls: the model's class, whose models have a `FrozenHead` and take `head_config`.
        task: a keras-hub task.
        config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
        **kwargs: those of the constructor.
    """
    shared = ("backbone", "preprocessor", "name", "trainable", "dtype")
    head_config = {k: v for k, v in task.get_config().items() if k not in shared}
    for name, value in (("preprocessor", task.preprocessor), ("head_config", head_config)):
        kwargs.setdefault(name, value)
    model = cls(task.backbone, config, **kwargs)
    FrozenHead(cut_head(task), task.backbone).copy_to(model.head, [None])
    return model
