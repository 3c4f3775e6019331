"""What prompt-tuned models with a trained head share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import numpy as np
from keras import ops

from keras_mpt.adapters.head_names import PREFIX
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.fitting.fitting import takes_labels
from keras_mpt.heads.task_heads import TaskHeads
from keras_mpt.models.prompt_tuned_model import PromptTunedModel


class PromptTunedClassifier(PromptTunedModel):
    """A frozen backbone with prompts under a linear head: one per task, or one for all.

    It is compiled as it is made (sparse cross-entropy on logits, accuracy, Adam), so that `fit`
    works at once; `compile` changes that as usual. Logs hold each task's loss and metrics under its
    name.

    Args:
        backbone: a `keras_hub.models.Backbone`. It is set to `trainable=False`.
        config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
        num_classes: list of T ints, each task's number of classes, for a head per task; or int, one
            head that all tasks share.
        **kwargs: see `keras_mpt.models.PromptTunedModel`.
    """

    num_classes: int | list[int]
    # A subclass's method: the trained layers behind the backbone, by the name of their module in an
    # adapter.
    head_layers: Callable[[], list[tuple[str, Any]]]

    def __init__(
        self, backbone: Any, config: PromptTuningConfig, num_classes: Any, **kwargs: Any
    ) -> None:
        num_classes = checked_num_classes(num_classes, config)
        super().__init__(backbone, config, **kwargs)
        self.num_classes = num_classes

    def build_head(self, width: int, use_bias: bool = True) -> None:
        """Makes the head, and compiles the model: a constructor's last step.

        Args:
            width: int. d, the width of the features.
            use_bias: bool. Whether the head has a bias. Defaults to `True`.
        """
        # Logits are float32 whatever the backbone computes in, for a stable softmax.
        settings: dict[str, Any] = {"use_bias": use_bias, "name": "logits", "dtype": "float32"}
        if isinstance(self.num_classes, int):
            self.logits = keras.layers.Dense(self.num_classes, **settings)
            self.logits.build((None, width))
        else:
            self.logits = TaskHeads(self.num_classes, **settings)
            self.logits.build((None, width), (None,))
        self.built = True
        self.compile()

    @property
    def max_classes(self) -> int:
        """C, the width of the logits."""
        return self.num_classes if isinstance(self.num_classes, int) else max(self.num_classes)

    def classify(self, features: Any, task_ids: Any = None) -> Any:
        """The head's logits.

        Args:
            features: float tensor (B, d) or (B, S, d).
            task_ids: integer tensor (B,) or (), or `None` without tasks. Defaults to `None`.

        Returns:
            A float tensor (B, C) or (B, S, C).
        """
        if isinstance(self.num_classes, int):
            return self.logits(features)
        rows = ops.shape(features)[0]
        return self.logits(features, ops.broadcast_to(task_ids, (rows,)))

    def compile(
        self, optimizer: Any = "auto", loss: Any = "auto", metrics: Any = "auto", **kwargs: Any
    ) -> None:
        """`keras.Model.compile`, with defaults that train.

        Args:
            optimizer: optimizer. Defaults to `"auto"`: Adam at 0.005, as soft prompts want larger
                steps than weights.
            loss: loss. Defaults to `"auto"`: sparse cross-entropy on logits.
            metrics: list of metrics. Defaults to `"auto"`: accuracy.
            **kwargs: the other arguments of `keras.Model.compile`.
        """
        if optimizer == "auto":
            optimizer = keras.optimizers.Adam(0.005)
        if loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if metrics == "auto":
            metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def check_targets(self, x: Any, y: Any) -> None:
        """Refuses labels that a row's task does not have."""
        labels = np.asarray(ops.convert_to_numpy(y) if ops.is_tensor(y) else y)
        if not takes_labels(self.loss):
            return
        if labels.dtype.kind not in "iufb":
            raise ValueError(
                "`y` should hold the classes' numbers, from 0 on. Received: y of dtype "
                f"{labels.dtype}, such as {labels.ravel()[:1].tolist()}"
            )
        labels = labels.astype("int32") if labels.dtype.kind == "b" else labels
        labels, counted = self.labels_that_count(x, labels)
        task_ids = x.get("task_ids")
        if isinstance(self.num_classes, int):
            limits = np.full(len(labels), self.num_classes)
        else:
            limits = np.broadcast_to(np.array(self.num_classes)[task_ids], len(labels))
        is_wrong = (labels < 0) | (labels >= limits[:, None]) | (labels != np.floor(labels))
        counted = counted & (labels != getattr(self.loss, "ignore_class", None))
        wrong = np.argwhere(is_wrong & counted)
        if len(wrong):
            row = int(wrong[0, 0])
            task = ""
            if task_ids is not None:
                names: Any = self.config.names  # type: ignore[attr-defined]
                task = f" of task {names[int(np.broadcast_to(task_ids, len(labels))[row])]!r}"
            raise ValueError(
                f"`y` should hold labels in [0, {limits[row]}), the classes{task}. Received: label "
                f"{labels[tuple(wrong[0])]} in row {row}, and {len(wrong)} wrong labels in all"
            )

    def labels_that_count(self, x: dict[str, Any], labels: np.ndarray) -> tuple[Any, Any]:
        """Labels as (B, N), after a check of their shape, and which of them the loss counts."""
        rows = len(x[self.splice.token_inputs[0].name])
        if labels.shape not in ((rows,), (rows, 1)):
            raise ValueError(
                f"`y` should have one label per row: {rows} of them. Received: y of shape "
                f"{labels.shape}"
            )
        return labels.reshape(-1, 1), np.full((rows, 1), True)

    def head_weights(self) -> dict[str, Any]:
        """The head's variables by the name that they have in an adapter."""
        return {
            f"{PREFIX}.{module}.{'weight' if v.name == 'kernel' else v.name}": v
            for module, layer in self.head_layers()
            for v in layer.weights
        }

    def classes_of_tasks(self, tasks: Sequence[int]) -> list[int] | None:
        """The tasks' numbers of classes, where each has a head."""
        per_task = self.num_classes
        return None if isinstance(per_task, int) else [per_task[task] for task in tasks]

    def classes_of_new_task(
        self, num_classes: Any, source: int | None, from_: Any
    ) -> list[int] | None:
        """All numbers of classes once a task is added, after checking the new one's."""
        if isinstance(self.num_classes, int):
            return super().classes_of_new_task(num_classes, source, from_)
        if num_classes is None and source is not None:
            return [*self.num_classes, self.num_classes[source]]
        if num_classes is None:
            raise ValueError(
                "`num_classes` should be given: each task has a head, and only from_=<a task> "
                f"brings one along. Received: num_classes=None with from_={from_!r}"
            )
        if isinstance(num_classes, (list, tuple)):
            raise ValueError(
                "`num_classes` should be one positive integer, the new task's. Received: "
                f"num_classes={num_classes!r}"
            )
        return [*self.num_classes, cast(int, checked_num_classes(num_classes, self.config))]

    def replace_heads(self, sources: Sequence[int | None], num_classes: list[int]) -> None:
        """Gives each task the head of its source, or a fresh one where that is `None`."""
        self.logits.replace_tasks(sources, num_classes)
        self.num_classes = num_classes

    def folded_arguments(self, task: int) -> dict[str, Any]:
        """What the head is built with: of a head per task, the task's own."""
        classes = self.classes_of_tasks([task])
        return {**self.adapter_extras(), **({} if classes is None else {"num_classes": classes[0]})}

    def copy_head(self, folded: Any, task: int) -> None:
        """Copies the task's columns of the heads, and all other layers of the head as they are."""
        own, columns = self.head_weights(), slice(None)
        if not isinstance(self.num_classes, int):
            columns = self.logits.columns(task)
        for name, variable in folded.head_weights().items():
            value = ops.convert_to_numpy(own[name])
            is_output = any(own[name] is v for v in self.logits.weights)
            variable.assign(value[..., columns] if is_output else value)

    def copy_heads(self, other: Any, heads: Sequence[int | None]) -> None:
        """Copies the layers below the output, a shared output as well, and the tasks' heads."""
        own, are_shared = self.head_weights(), isinstance(self.num_classes, int)
        for name, variable in other.head_weights().items():
            value = ops.convert_to_numpy(own[name])
            is_output = any(variable is v for v in other.logits.weights)
            if not is_output or (are_shared and None not in heads):
                variable.assign(value)
                continue
            start = np.array(ops.convert_to_numpy(variable))
            for task, source in enumerate(heads):
                if source is not None:
                    start[..., other.logits.columns(task)] = value[..., self.logits.columns(source)]
            variable.assign(start)

    def adapter_extras(self) -> dict[str, Any]:
        """What `load_adapter` needs to rebuild the head."""
        return {"num_classes": self.num_classes}

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), **self.adapter_extras()}


def checked_num_classes(num_classes: Any, config: PromptTuningConfig) -> int | list[int]:
    """`num_classes` as plain integers, after checking it against the config's tasks."""
    counts = num_classes if isinstance(num_classes, (list, tuple)) else [num_classes]
    if not counts or not all(
        isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in counts
    ):
        raise ValueError(
            "`num_classes` should be a positive integer, or a list with one per task. Received: "
            f"num_classes={num_classes!r}"
        )
    if not isinstance(num_classes, (list, tuple)):
        return int(num_classes)
    num_tasks = config.num_tasks if isinstance(config, MultitaskPromptTuningConfig) else None
    if num_tasks != len(counts):
        raise ValueError(
            "`num_classes` should have one entry per task of a MultitaskPromptTuningConfig "
            f"(num_tasks={num_tasks}), or be one integer. Received: num_classes={num_classes!r}"
        )
    return [int(n) for n in counts]
