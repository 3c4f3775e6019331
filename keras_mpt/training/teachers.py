"""Teachers: one ordinary prompt per source task, on the student's own frozen backbone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_mpt.adapters.backbone_identity import backbone_difference
from keras_mpt.adapters.differences import Difference, config_difference, head_difference
from keras_mpt.adapters.directory import load
from keras_mpt.adapters.reading import Adapter, read_adapter
from keras_mpt.checks import received, shown
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_labels import LABEL_FIELDS
from keras_mpt.files.paths import is_file_name
from keras_mpt.heads.head import FrozenHead
from keras_mpt.heads.task_heads import NO_CLASS
from keras_mpt.models.arguments import adapter_parts
from keras_mpt.models.prompt_tune import load_read_adapter
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.models.tasks import arguments_for, multitask_config
from keras_mpt.prompts.multitask_prompt_embedding import MultitaskPromptEmbedding
from keras_mpt.types import Backbone, Tensor, Tensors

# A teacher has one ordinary prompt, whatever the student has.
_MAY_DIFFER = ("peft_type", "num_tasks", "num_ranks")


class Teachers:
    """All teachers at once: a batch of mixed tasks passes through the backbone once.

    T ordinary prompts are one multitask prompt of rank M·L: with P = 1 and cols_k the identity,
    P ∘ (cols_k · rows_k) is rows_k.

    Args:
        student: the prompt-tuned model that they teach.
        models: list of T prompt-tuned models of one prompt each, in the order of its tasks.
    """

    def __init__(self, student: PromptTunedModel, models: list[PromptTunedModel]) -> None:
        self.student = student
        self.models = models
        prompts = np.stack([m.prompt.get_peft_state_dict()["prompt_embeddings"] for m in models])
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
        self.prompt.set_peft_state_dict(state, "teachers")
        self.prompt.trainable = False
        for model in models:
            model.trainable = False

    def call_with_states(
        self, inputs: dict[str, Tensor], layers: tuple[int, ...], prompt_positions: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Each row's teacher's logits and hidden states, without gradients and without dropout.

        Args:
            inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids` (B,) integer.
            layers: see `PromptTunedModel.call_with_states`.
            prompt_positions: bool. Likewise. Defaults to `False`.

        Returns:
            The logits, shaped as the student's, and a list of hidden states.
        """
        given = inputs, layers, prompt_positions, False, self.prompt
        if self.student.head.num_classes is not None:
            outputs, states = self.student.run_backbone(*given)
            outputs = self._logits(outputs, inputs)
        else:
            outputs, states = self.student.call_with_states(*given)
        return ops.stop_gradient(outputs), [ops.stop_gradient(s) for s in states]

    def _logits(self, outputs: Tensors, inputs: dict[str, Tensor]) -> Tensor:
        """Each row's logits under its own teacher's head; classes that it lacks get none."""
        classes = self.student.head.num_classes
        task_ids = inputs["task_ids"]
        chosen: Tensor = None
        for k, model in enumerate(self.models):
            logits = model.after_backbone(outputs, inputs, False)
            if isinstance(classes, list):
                missing = max(classes) - logits.shape[-1]
                padding = [(0, 0)] * (len(logits.shape) - 1) + [(0, missing)]
                logits = ops.pad(logits, padding, constant_values=NO_CLASS)
            is_own = ops.reshape(ops.equal(task_ids, k), (-1, *[1] * (len(logits.shape) - 1)))
            chosen = logits if chosen is None else ops.where(is_own, logits, chosen)
        return chosen


def load_teachers(student: PromptTunedModel, teachers: Any) -> list[PromptTunedModel]:
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
    names = multitask_config(student).names
    if isinstance(teachers, (str, os.PathLike)):
        wrong = [name for name in names if not is_file_name(name)]
        if wrong:
            raise ValueError(
                "`teachers` should be a dict where the student's tasks have names that no folder "
                f"can have. Received: teachers={os.fspath(teachers)!r} with tasks {received(wrong)}"
            )
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
    adapter: Adapter,
    config: PromptTuningConfig,
    backbone: Backbone,
    head: Mapping[str, Any] | None = None,
) -> None:
    """Refuses a saved teacher that is not one for this config and backbone.

    Args:
        name: string. Its task.
        adapter: its adapter, read.
        config: the config of the student, or of the teachers to be.
        backbone: the backbone to use it on.
        head: dict of what its head is to be built with, such as `num_classes`. Defaults to `None`.
    """
    saved, own = adapter.config, adapter.own_fields
    if isinstance(saved, MultitaskPromptTuningConfig):
        raise ValueError(
            f"`teachers` should hold one ordinary prompt each (PROMPT_TUNING). Received: for task "
            f"{name!r} a {saved.peft_type} adapter in {adapter.source!r}"
        )
    _refuse(name, config_difference(config, saved, _MAY_DIFFER))
    _refuse(name, _label_difference(name, config, saved))
    _refuse(name, head_difference(head or {}, own))
    other_backbone = backbone_difference(own.get("backbone"), backbone)
    if other_backbone is not None:
        raise _other(name, f"another backbone: {other_backbone}")


def _loaded(student: PromptTunedModel, k: int, name: str, teacher: Any) -> PromptTunedModel:
    model = teacher
    if isinstance(teacher, (str, os.PathLike)):
        adapter = read_adapter(teacher)
        check_teacher(name, adapter, student.config, student.backbone)
        if isinstance(student.head, FrozenHead):
            model = _with_its_head(student, adapter)
        else:
            model = load_read_adapter(student.backbone, adapter)
    if type(model) is not type(student) or isinstance(model.config, MultitaskPromptTuningConfig):
        raise ValueError(
            f"`teachers` should be of the student's class, {type(student).__name__}, with one "
            f"ordinary prompt. Received: for task {name!r} a {type(model).__name__} with a "
            f"{type(model.config).__name__}"
        )
    if model.backbone is not student.backbone:
        raise _other(name, "another backbone than the student's own")
    _refuse(name, config_difference(student.config, model.config, _MAY_DIFFER))
    _refuse(name, _label_difference(name, student.config, model.config))
    classes = student.head.num_classes
    wanted = classes[k] if isinstance(classes, list) else classes
    if model.head.num_classes != wanted:
        raise _other(name, f"{model.head.num_classes} classes, not {wanted}")
    return model


def _label_difference(
    name: str, config: PromptTuningConfig, teacher: PromptTuningConfig
) -> Difference | None:
    """Classes that stand for others, where both sides say for what."""
    for field in LABEL_FIELDS:
        wanted, found = getattr(config, field), getattr(teacher, field)
        wanted = wanted.get(name) if isinstance(wanted, dict) else wanted
        if wanted and found and wanted != found:
            return Difference(field, wanted, found)
    return None


def _with_its_head(student: PromptTunedModel, adapter: Adapter) -> PromptTunedModel:
    """A teacher under the student's own frozen head, of which an adapter says nothing."""
    config = dataclasses.replace(adapter.config, inference_mode=False)
    arguments = arguments_for(student, [0], as_one=True)
    model = type(student)(student.backbone, config, **arguments, initialize=False)
    student.head.copy_to(model.head, [None])
    load(adapter_parts(model), adapter)
    return model


def _refuse(name: str, difference: Difference | None) -> None:
    if difference is not None:
        field, wanted, found = difference
        raise _other(name, f"`{field}`={shown(found)}, not {shown(wanted)}")


def _other(name: str, difference: str) -> ValueError:
    return ValueError(
        "`teachers` should fit the student: its backbone, lengths, widths and classes. Received: "
        f"for task {name!r} a teacher with {difference}"
    )
