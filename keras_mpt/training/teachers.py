"""Teachers: one ordinary prompt per source task, on the student's own frozen backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_mpt.adapters.backbone_identity import misfit
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.files.config_files import read_config
from keras_mpt.heads.task_heads import NO_CLASS
from keras_mpt.models.prompt_tune import load_adapter
from keras_mpt.prompts.multitask_prompt_embedding import MultitaskPromptEmbedding

_SIZES = ("num_virtual_tokens", "submodules", "prompt_position", "task_type", "token_dim")


class Teachers:
    """All teachers at once: a batch of mixed tasks passes through the backbone once.

    T ordinary prompts are one multitask prompt of rank M·L: with P = 1 and cols_k the identity,
    P ∘ (cols_k · rows_k) is rows_k.

    Args:
        student: the prompt-tuned model that they teach.
        models: list of T prompt-tuned models of one prompt each, in the order of its tasks.
    """

    def __init__(self, student: Any, models: list[Any]) -> None:
        self.student = student
        self.models = models
        prompts = np.stack([m.prompt.state_dict()["prompt_embeddings"] for m in models])
        tasks, length, width = prompts.shape
        self.prompt = MultitaskPromptEmbedding(
            num_tasks=tasks,
            num_virtual_tokens=length // student.config.submodules,
            token_dim=width,
            num_ranks=length,
            num_transformer_submodules=student.config.submodules,
            dtype=student.prompt.dtype_policy,
            name="teachers",
        )
        state = {
            "prompt_embeddings": np.ones((length, width), "float32"),
            "prefix_task_cols": np.tile(np.eye(length, dtype="float32"), (tasks, 1, 1)),
            "prefix_task_rows": prompts,
        }
        self.prompt.load_state_dict(state, "teachers")
        self.prompt.trainable = False
        for model in models:
            model.trainable = False

    def call_with_states(
        self, inputs: dict[str, Any], layers: tuple[int, ...], prompt_positions: bool = False
    ) -> tuple[Any, list[Any]]:
        """Each row's teacher's logits and hidden states, without gradients and without dropout.

        Args:
            inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids` (B,) integer.
            layers: see `PromptTunedModel.call_with_states`.
            prompt_positions: bool. Likewise. Defaults to `False`.

        Returns:
            The logits, shaped as the student's, and a list of hidden states.
        """
        given = inputs, layers, prompt_positions, False, self.prompt
        if self.models[0].head_weights():
            outputs, states = self.student.run_backbone(*given)
            outputs = self._logits(outputs, inputs)
        else:
            outputs, states = self.student.call_with_states(*given)
        return ops.stop_gradient(outputs), [ops.stop_gradient(s) for s in states]

    def _logits(self, outputs: Any, inputs: dict[str, Any]) -> Any:
        """Each row's logits under its own teacher's head; classes that it lacks get none."""
        has_own_classes = isinstance(self.student.num_classes, list)
        task_ids = inputs["task_ids"]
        chosen: Any = None
        for k, model in enumerate(self.models):
            logits = model.after_backbone(outputs, inputs, False)
            if has_own_classes:
                missing = self.student.max_classes - logits.shape[-1]
                padding = [(0, 0)] * (len(logits.shape) - 1) + [(0, missing)]
                logits = ops.pad(logits, padding, constant_values=NO_CLASS)
            is_own = ops.reshape(ops.equal(task_ids, k), (-1, *[1] * (len(logits.shape) - 1)))
            chosen = logits if chosen is None else ops.where(is_own, logits, chosen)
        return chosen


def load_teachers(student: Any, teachers: Any) -> list[Any]:
    """Teachers from where they were saved, checked against the student.

    Args:
        student: a prompt-tuned model with tasks.
        teachers: directory with a teacher's adapter under each task's name; or dict of task name to
            an adapter's directory, or to a prompt-tuned model of one prompt.

    Returns:
        A list of T prompt-tuned models, in the order of the student's tasks.

    Raises:
        ValueError: a teacher that is missing, has another length, width or place in the text, was
            made on another backbone, or has other classes.
    """
    names = student.config.names
    if isinstance(teachers, (str, os.PathLike)):
        teachers = {n: Path(teachers) / n for n in names if (Path(teachers) / n).is_dir()}
    if not isinstance(teachers, Mapping):
        raise ValueError(
            "`teachers` should be a directory, or a dict with a directory or a model per task. "
            f"Received: teachers={teachers!r}"
        )
    missing = [name for name in names if name not in teachers]
    if missing:
        raise ValueError(
            f"`teachers` should have one for each of the student's tasks {names}; "
            f"`keras_mpt.train_teachers` makes them. Received: none for {missing}"
        )
    return [_loaded(student, k, name, teachers[name]) for k, name in enumerate(names)]


def check_teacher(
    name: str,
    directory: str | os.PathLike[str],
    config: Any,
    backbone: Any,
    head: Mapping[str, Any] | None = None,
) -> None:
    """Refuses a saved teacher that is not one for this config and backbone.

    Args:
        name: string. Its task.
        directory: string. Its adapter.
        config: the config of the student, or of the teachers to be.
        backbone: the backbone to use it on.
        head: dict of what its head is to be built with, such as `num_classes`. Defaults to `None`.
    """
    saved = PromptTuningConfig.from_pretrained(directory)
    if isinstance(saved, MultitaskPromptTuningConfig):
        raise ValueError(
            f"`teachers` should hold one ordinary prompt each (PROMPT_TUNING). Received: for task "
            f"{name!r} a {saved.peft_type} adapter in {str(directory)!r}"
        )
    _check_sizes(name, config, saved)
    own = read_config(directory)[1] or {}
    for field, wanted in (head or {}).items():
        if field in own and own[field] != wanted:
            raise _other(name, f"`{field}`={_shown(own[field])}, not {_shown(wanted)}")
    identity = own.get("backbone")
    difference = None if identity is None else misfit(identity, backbone)
    if difference is not None:
        raise _other(name, f"another backbone: {difference}")


def _loaded(student: Any, k: int, name: str, teacher: Any) -> Any:
    model = teacher
    if isinstance(teacher, (str, os.PathLike)):
        check_teacher(name, teacher, student.config, student.backbone)
        model = load_adapter(student.backbone, teacher)
    if type(model) is not type(student) or isinstance(model.config, MultitaskPromptTuningConfig):
        raise ValueError(
            f"`teachers` should be of the student's class, {type(student).__name__}, with one "
            f"ordinary prompt. Received: for task {name!r} a {type(model).__name__} with a "
            f"{type(model.config).__name__}"
        )
    if model.backbone is not student.backbone:
        raise _other(name, "another backbone than the student's own")
    _check_sizes(name, student.config, model.config)
    classes = getattr(student, "num_classes", None)
    wanted = classes[k] if isinstance(classes, list) else classes
    if getattr(model, "num_classes", None) != wanted:
        raise _other(name, f"{model.num_classes} classes, not {wanted}")
    return model


def _check_sizes(name: str, config: Any, teacher: Any) -> None:
    for size in _SIZES:
        wanted, found = getattr(config, size), getattr(teacher, size)
        # A config that no model was made of yet may leave some to the backbone.
        if wanted is not None and found is not None and wanted != found:
            raise _other(name, f"`{size}`={_shown(found)}, not {_shown(wanted)}")


def _other(name: str, difference: str) -> ValueError:
    return ValueError(
        "`teachers` should fit the student: its backbone, lengths, widths and classes. Received: "
        f"for task {name!r} a teacher with {difference}"
    )


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
