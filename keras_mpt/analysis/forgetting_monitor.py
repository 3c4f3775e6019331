"""Watching old tasks while new ones are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_mpt.analysis.checks import task_names
from keras_mpt.analysis.forgetting import forgetting
from keras_mpt.checks import check_flag, check_size, received
from keras_mpt.data.columns import as_columns
from keras_mpt.types import Data, Logs, TargetData


class ForgettingMonitor(keras.callbacks.Callback):
    """Evaluates tasks when `fit` begins and after each epoch, and keeps a table of their scores.

    Factors and heads of a task change only with its own rows, but all tasks share P. Give one
    monitor to each `fit`, and its table goes on; a task that `add_task` made is put into `data`.

    Training is the same bit for bit with it, but for one thing: on PyTorch every evaluation, that
    of validation data too, draws from the generator by which `fit` shuffles arrays. A `TaskMix` has
    a seed of its own.

    Args:
        data: dict of task name to `(x, y)`: `x` a dict of arrays (N, …) without `task_ids`, or a
            list of N strings, or a pair of such lists; `y` an array (N, …), or `None` where the
            model's preprocessor makes the targets of text.
        metric: string. The score: `"loss"`, or the name of a compiled metric. Defaults to
            `"accuracy"`.
        mode: `"max"`, `"min"`, or `"auto"`: `"min"` for the loss, else `"max"`. Defaults to
            `"auto"`.
        each_epoch: bool. Whether to evaluate after each epoch, or only as `fit` begins and ends.
            Defaults to `True`.
        batch_size: int; `None` is Keras's own. Defaults to `32`.

    Attributes:
        data: dict, as given.
        scores: list of dicts of task name to float: one per evaluation, the first before training.
        epochs: list of ints: how many epochs were trained before each evaluation.

    Raises:
        ValueError: before the first step: data of a task that the model does not have, or a metric
            that it does not report.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["a", "b"]
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
        x = {"token_ids": np.ones((2, 6), "int32"), "padding_mask": np.ones((2, 6), "int32")}
        x["segment_ids"] = np.zeros((2, 6), "int32")
        monitor = keras_mpt.analysis.ForgettingMonitor({"a": (x, np.array([0, 1]))})
        model.fit({**x, "task_ids": ["b", "b"]}, [2, 2], verbose=0, callbacks=[monitor])
        assert len(monitor.scores) == 2 and set(monitor.forgetting()) == {"a"}
        ```

    Source: Chaudhry et al. 2018 (arXiv 1801.10112), section 3.
    """

    def __init__(
        self,
        data: Mapping[str, tuple[Any, Any]],
        metric: str = "accuracy",
        mode: str = "auto",
        each_epoch: bool = True,
        batch_size: int | None = 32,
    ) -> None:
        super().__init__()
        if not isinstance(data, Mapping) or not data:
            raise ValueError(
                "`data` should be a dict of task name to (x, y), with at least one task. Received: "
                f"data={received(data)}"
            )
        for name, given in data.items():
            if not isinstance(given, (tuple, list)) or len(given) != 2:
                raise ValueError(
                    f"`data` should hold (x, y) for each task. Received: for task {name!r} a "
                    f"{type(given).__name__}"
                )
        if mode not in ("auto", "max", "min"):
            raise ValueError(f"`mode` should be 'auto', 'max' or 'min'. Received: mode={mode!r}")
        self.data = dict(data)
        self.metric = metric
        self.mode = {"auto": "min" if metric == "loss" else "max"}.get(mode, mode)
        self.each_epoch = check_flag("each_epoch", each_epoch)
        self.batch_size = None if batch_size is None else check_size("batch_size", batch_size)
        self.scores: list[dict[str, float]] = []
        self.epochs: list[int] = []
        self._trained = 0

    def forgetting(self) -> dict[str, float]:
        """How far each task is now below its best earlier score; see `forgetting`.

        Returns:
            A dict of task name to float.
        """
        return forgetting(self.scores[:-1], self.scores[-1] if self.scores else {}, self.mode)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Evaluates what there is before training."""
        unknown = [name for name in self.data if name not in task_names(self.model)]
        if unknown:
            raise ValueError(
                f"`data` should hold tasks of the model, {task_names(self.model)}. Received: data "
                f"with {unknown}"
            )
        self._evaluate()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Evaluates again."""
        self._trained += 1
        if self.each_epoch:
            self._evaluate()

    def on_train_end(self, logs: Logs = None) -> None:
        """Evaluates where that was not done after each epoch."""
        if not self.each_epoch:
            self._evaluate()

    def _evaluate(self) -> None:
        scores = {name: self._score(name, *data) for name, data in self.data.items()}
        self.scores.append(scores)
        self.epochs.append(self._trained)

    def _score(self, name: str, x: Data, y: TargetData) -> float:
        x = as_columns(x)
        x = x if isinstance(x, dict) else {"text": x}
        results = self.model.evaluate(
            {**x, "task_ids": name},
            y,
            batch_size=self.batch_size,
            verbose=0,
            return_dict=True,
        )
        if self.metric not in results:
            of_tasks = tuple(f"{task}_" for task in task_names(self.model))
            known = [key for key in results if not key.startswith(of_tasks)]
            raise ValueError(
                f"`metric` should be one of {known}, which the model reports. Received: metric="
                f"{self.metric!r}"
            )
        return float(results[self.metric])
