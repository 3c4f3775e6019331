"""A callback that ends a training with the best weights that it had."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_choice, received
from keras_mpt.fitting.fitting import Fitting
from keras_mpt.types import Logs


class BestWeights(keras.callbacks.Callback):
    """Keeps the best trained weights by what `fit` validates, and puts them back at the end.

    The score of an epoch is the mean over the tasks of `val_<task>_<metric>`, so that each task
    counts alike however many rows it has; of tasks without rows in the validation data nothing is
    known, and nothing counted. Where `fit` logs no tasks (one prompt, more than 32 tasks, or
    `task_logs=False`) it is `val_<metric>`, of all rows.

    To choose by some tasks alone, or by a metric of each task's own, give a dict:
    `BestWeights({"tone": "accuracy", "topic": "top"})` takes the mean of `val_tone_accuracy` and
    `val_topic_top`. One epoch is chosen for all tasks: their prompts share P, and factors of one
    epoch mean nothing beside the P of another.

    Kept are the trained variables, in memory: the prompt, the tasks' factors and heads, nothing of
    the frozen backbone. `keras.callbacks.EarlyStopping(restore_best_weights=True)` copies the
    backbone each time, and knows no mean over tasks. This one stops nothing; both may be given.

    Args:
        metric: string, or dict of task name to string. What `fit` reports: a metric's name, or
            `"loss"`. Defaults to `"accuracy"`.
        mode: `"max"`, `"min"`, or `"auto"`: `"min"` for the loss, else `"max"`. Defaults to
            `"auto"`.

    Attributes:
        best: float. The best score, or `None` before the first.
        best_epoch: int. The epoch that it is of, 0 being the first; or `None`.

    Raises:
        ValueError: no metric, or a mode that there is not. In `fit`: a task that the model lacks,
            before the first step; a metric that the validation does not report, after the first
            validation.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["a", "b"]
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=2)
        ids = np.arange(24).reshape(4, 6)
        x = {"token_ids": ids, "padding_mask": ids >= 0, "segment_ids": ids * 0}
        x["task_ids"] = ["a", "b", "a", "b"]
        y = np.array([0, 1, 1, 0])
        best = keras_mpt.recipes.BestWeights()
        model.fit(x, y, epochs=3, validation_data=(x, y), callbacks=[best], verbose=0)
        found = model.evaluate(x, y, return_dict=True, verbose=0)
        assert best.best == (found["a_accuracy"] + found["b_accuracy"]) / 2
        ```
    """

    def __init__(self, metric: str | Mapping[str, str] = "accuracy", mode: str = "auto") -> None:
        super().__init__()
        named = list(metric.values()) if isinstance(metric, Mapping) else [metric]
        if not named or not all(isinstance(name, str) and name for name in named):
            raise ValueError(
                "`metric` should be the name of a metric, or a dict of task name to one. Received: "
                f"metric={received(metric)}"
            )
        check_choice("mode", mode, ("auto", "max", "min"))
        is_loss = {name == "loss" for name in named}
        if mode == "auto" and len(is_loss) > 1:
            raise ValueError(
                "`mode` should be 'max' or 'min' where `metric` names the loss beside others. "
                f"Received: mode='auto' with metric={received(metric)}"
            )
        self.metric = dict(metric) if isinstance(metric, Mapping) else metric
        self.mode = mode if mode != "auto" else "min" if is_loss == {True} else "max"
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._kept: list[np.ndarray] = []
        self._epochs = 0

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forgets an earlier `fit`."""
        self.best, self.best_epoch, self._kept, self._epochs = None, None, [], 0
        names = _task_names(self.model)
        unknown = [t for t in self.metric if t not in names] if self._is_by_task() else []
        if unknown:
            raise ValueError(
                f"`metric` should have tasks of the model, {names}. Received: metric with {unknown}"
            )

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Keeps the weights, where they are the best so far."""
        self._epochs += 1
        score = self._score(logs or {})
        if score is None or not math.isfinite(score):
            return
        is_better = self.best is None or (
            score > self.best if self.mode == "max" else score < self.best
        )
        if is_better:
            self.best, self.best_epoch = score, epoch
            # Copies: on PyTorch an array may be a view of what training changes.
            self._kept = [np.array(to_numpy(v)) for v in self.model.trainable_variables]

    def on_train_end(self, logs: Logs = None) -> None:
        """Puts the best weights back."""
        if self.best is None:
            if self._epochs:
                warnings.warn(
                    "BestWeights has nothing to choose by, and leaves the last weights: `fit` had "
                    "no validation data, or none whose score is a number.",
                    stacklevel=2,
                )
            return
        for variable, value in zip(self.model.trainable_variables, self._kept, strict=True):
            variable.assign(value)

    def run_state(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """What a resumed run needs: see `ResumeTraining`."""
        return {"best": self.best, "best_epoch": self.best_epoch}, self._kept

    def set_run_state(self, about: dict[str, Any], values: list[np.ndarray]) -> None:
        """Goes on from what `run_state` gave."""
        self.best, self.best_epoch, self._kept = about["best"], about["best_epoch"], values

    def _is_by_task(self) -> bool:
        return isinstance(self.metric, dict)

    def _score(self, logs: dict[str, Any]) -> float | None:
        """An epoch's score; `None` where it was not validated."""
        found = {n.removeprefix("val_"): v for n, v in logs.items() if n.startswith("val_")}
        if not found:
            return None
        if isinstance(self.metric, dict):
            wanted = [f"{task}_{metric}" for task, metric in self.metric.items()]
            missing = [name for name in wanted if name not in found]
        else:
            of_tasks = [f"{task}_{self.metric}" for task in _task_names(self.model)]
            wanted = [name for name in of_tasks if name in found] or [self.metric]
            missing = [name for name in wanted if name not in found]
        if missing:
            raise ValueError(
                f"`metric` should be what the validation reports, {sorted(found)}. Received: "
                f"metric={self.metric!r}, of which it lacks {missing}"
            )
        return float(np.mean([float(found[name]) for name in wanted]))


def _task_names(model: keras.Model) -> list[str]:
    """The model's tasks, where it has any."""
    return list(model.model_inputs.task_names or ()) if isinstance(model, Fitting) else []
