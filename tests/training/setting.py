"""Source tasks, teachers and a student, small enough for a test."""

from typing import Any

import keras
import numpy as np

import keras_mpt
from tests import tiny

LENGTH = 3
TASKS = {"tone": 2, "topic": 3}
TASK_TYPES = {
    "gpt2": "CAUSAL_LM",
    "llama": "CAUSAL_LM",
    "t5": "SEQ_2_SEQ_LM",
    "bart": "SEQ_2_SEQ_LM",
}


class Setting:
    """A backbone, data, a teacher per task whose prompts are real tokens, and a student.

    A prompt of token embeddings is what the backbone itself can be run on, by its ids.
    """

    def __init__(self, kind: str = "bert", task_type: str | None = None, **kwargs: Any) -> None:
        self.kind = kind
        self.task_type = task_type or TASK_TYPES.get(kind, "SEQ_CLS")
        dropout = {"dropout": 0.0} if kind in ("bert", "roberta", "gpt2", "bart", "t5") else {}
        self.backbone = tiny.backbone(kind, **dropout)
        if self.task_type == "SEQ_CLS" and kwargs.get("pooling", "base") == "base":
            kwargs["head_config"] = {"dropout": 0.0}
        self.x = tiny.inputs(self.backbone, rows=6)
        rng = np.random.default_rng(1)
        self.task_ids = np.array([0, 1, 1, 0, 1, 0], "int32")
        self.inputs = {**self.x, "task_ids": self.task_ids}
        self.y = self._targets(rng)
        self.prompt_ids = {name: rng.integers(2, 50, LENGTH) for name in ("student", *TASKS)}
        self.teachers = {name: self._teacher(name, **kwargs) for name in TASKS}
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type=self.task_type,
            num_virtual_tokens=LENGTH,
            num_tasks=2,
            task_names=list(TASKS),
            num_transformer_submodules=1,
            prompt_position="before",
        )
        classes = {"num_classes": list(TASKS.values())} if self.has_classes else {}
        self.student = keras_mpt.prompt_tune(self.backbone, config, **classes, **kwargs)
        self._set_prompt(self.student, "student")

    @property
    def has_classes(self) -> bool:
        return self.task_type in ("SEQ_CLS", "TOKEN_CLS")

    def datasets(self) -> dict[str, Any]:
        """Each task's rows."""
        return {
            name: (
                {k: v[self.task_ids == i] for k, v in self.x.items()},
                self.y[self.task_ids == i],
            )
            for i, name in enumerate(TASKS)
        }

    def _targets(self, rng: Any) -> np.ndarray:
        shape: Any = next(iter(self.x.values())).shape
        if self.task_type == "SEQ_CLS":
            return rng.integers(0, 2, shape[0])
        if self.task_type == "QUESTION_ANS":
            return np.repeat([[0, 2]], shape[0], 0)
        return rng.integers(0, 2 if self.task_type == "TOKEN_CLS" else 50, shape)

    def _teacher(self, name: str, **kwargs: Any) -> Any:
        config = keras_mpt.PromptTuningConfig(
            task_type=self.task_type,
            num_virtual_tokens=LENGTH,
            num_transformer_submodules=1,
            prompt_position="before",
        )
        classes = {"num_classes": TASKS[name]} if self.has_classes else {}
        teacher = keras_mpt.prompt_tune(self.backbone, config, **classes, **kwargs)
        self._set_prompt(teacher, name)
        return teacher

    def _set_prompt(self, model: Any, name: str) -> None:
        embedded = model.splice.embed_tokens(keras.ops.convert_to_tensor(self.prompt_ids[name]))
        model.prompt.prompt_embeddings.assign(embedded)

    def states(self, names: list[str]) -> np.ndarray:
        """The backbone's own states on each row's `[prompt's ids; ids]`, prompt positions too."""
        x = dict(self.x)
        side = "encoder_" if f"encoder_{'token_ids'}" in x else ""
        prompts = np.stack([self.prompt_ids[name] for name in names]).astype("int32")
        for key, value in self.x.items():
            if key.startswith(side):
                front = {"token_ids": prompts, "padding_mask": np.ones_like(prompts)}
                first = front.get(key.removeprefix(side), np.zeros_like(prompts))
                x[key] = np.concatenate([first, value], axis=1)
        outputs = self.backbone(x)
        if isinstance(outputs, dict):
            outputs = outputs.get("sequence_output", outputs.get("decoder_sequence_output"))
        return keras.ops.convert_to_numpy(outputs).astype("float64")
