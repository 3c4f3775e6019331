"""Tasks that come and go after training, and one task's prompt as a model of its own.

The layers and the backbone stay the objects that they are. The variables of the tasks' factors, and
of heads per task, are replaced by longer or shorter ones, and the model is compiled anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_values import START_DONE, TASKS_START_DONE, check_task_name
from keras_mpt.fitting.fitting import Fitting
from keras_mpt.prompts.starts import seed_of, task_factors

AVERAGE, SHARED = "average", "shared"


class Growing(Fitting):
    """A `Fitting` model whose tasks can be added, removed, renamed and folded."""

    backbone: Any
    config: PromptTuningConfig
    preprocessor: Any
    prompt: Any

    def add_task(
        self, name: str, from_: str | int | None = AVERAGE, num_classes: int | None = None
    ) -> int:
        """Adds a task, in place, as the last one: before or after training.

        Every other task's prompt and head keep their bits, and with them its logits. The optimizer
        is fresh: the state of the old one is of another size. Its class and settings, the learning
        rate among them, and the loss and the metrics stay, so `fit` goes on at once; a learning
        rate schedule begins anew.

        Args:
            name: string. The new task's name.
            from_: where its factors start. `"average"`: cols and rows are each the mean of the
                other tasks' cols and rows, which is how PEFT averages source tasks (the mean of
                factors, not of prompts). A task's name or id: a copy of that task's. `"shared"` or
                `None`: cols · rows = 1, so that its prompt starts as P. A task that is itself named
                "average" or "shared" is given by its id. Defaults to `"average"`.
            num_classes: int. For a model with a head per task: its number of classes, for a fresh
                head. `None` copies the head too, where `from_` is one task. Defaults to `None`.

        Returns:
            An int, the new task's id.

        Raises:
            ValueError: a name that is empty or some task's, an unknown `from_`, a `num_classes`
                that is missing or out of place, or a model without tasks.

        Example:
            ```python
            backbone = keras_hub.models.BertBackbone(
                vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            config = keras_mpt.MultitaskPromptTuningConfig(
                task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["a", "b"]
            )
            model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
            model.add_task("c", from_="a", num_classes=4)
            model.remove_task("b")
            model.rename_task("c", "topic")
            assert model.config.task_names == ["a", "topic"]
            ```

        Source: Wang et al. 2023 (arXiv 2303.02861), section 3.3; PEFT `AVERAGE_SOURCE_TASKS`.
        """
        names = self._tasks().names
        _check_name("name", name, names)
        source = self.source_of(from_)
        old = range(len(names))
        head = source if isinstance(source, int) and num_classes is None else None
        classes = self.classes_of_new_task(num_classes, head, from_)
        self._change_tasks([*names, name], self.factors_from([*old, source]), [*old, head], classes)
        return len(names)

    def remove_task(self, task: str | int) -> None:
        """Removes a task, in place; the ids of those behind it fall by one, names stay.

        The other tasks and the compile settings are kept as `add_task` keeps them.

        Args:
            task: string or int. Its name or id.

        Raises:
            ValueError: a task that the model does not have, its last task, or a model without
                tasks.
        """
        names = self._tasks().names
        removed = self._task_id("task", task)
        if len(names) == 1:
            raise ValueError(
                f"`task` should leave the model a task. Received: task={task!r}, its only one"
            )
        kept = [k for k in range(len(names)) if k != removed]
        classes = self.classes_of_tasks(kept)
        self._change_tasks([names[k] for k in kept], self.factors_from(kept), kept, classes)

    def rename_task(self, old: str | int, new: str) -> None:
        """Renames a task, in place; the optimizer keeps its state.

        Args:
            old: string or int. The task's name or id.
            new: string. Its new name.

        Raises:
            ValueError: a task that the model does not have, a name that is empty or some task's, or
                a model without tasks.
        """
        names = self._tasks().names
        task = self._task_id("old", old)
        _check_name("new", new, names)
        settings = self._compile_settings()
        self._set_config(task_names=[*names[:task], new, *names[task + 1 :]])
        self._compile_again(settings, self.optimizer)

    def fold(self, task: str | int) -> Self:
        """A model of one task: its prompt P ∘ (cols · rows) as one ordinary prompt, and its head.

        The new model has the same class and the same backbone, shared, not copied; its weights are
        its own. Its adapter is PEFT's PROMPT_TUNING.

        Args:
            task: string or int. The task's name or id.

        Returns:
            A model that takes no `task_ids`, with that task's logits. Of a head per task it has
            that task's alone, so its logits are (B, C_k).

        Raises:
            ValueError: a task that the model does not have, or a model without tasks.

        Example:
            ```python
            backbone = keras_hub.models.GPT2Backbone(
                vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            config = keras_mpt.MultitaskPromptTuningConfig(
                task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=3
            )
            model = keras_mpt.prompt_tune(backbone, config).fold(1)
            ids = np.array([[5, 6, 7]])
            assert model({"token_ids": ids, "padding_mask": np.ones_like(ids)}).shape == (1, 3, 100)
            ```
        """
        config = self._tasks()
        task = self._task_id("task", task)
        folded = type(self)(
            self.backbone,
            _folded_config(config),
            **self.folded_arguments(task),
            preprocessor=self.preprocessor,
            dtype=self.dtype_policy,
            initialize=False,
        )
        prompt = ops.convert_to_numpy(ops.cast(self.prompt([task])[0], "float32"))
        folded.prompt.load_state_dict({"prompt_embeddings": prompt}, "fold")
        self.copy_head(folded, task)
        return folded

    def classes_of_tasks(self, tasks: Sequence[int]) -> list[int] | None:
        """The numbers of classes of tasks with a head each; `None` in a model without such heads.

        What has a head overrides this method and the four below.
        """
        return None

    def classes_of_new_task(
        self, num_classes: Any, source: int | None, from_: Any
    ) -> list[int] | None:
        """All numbers of classes once a task is added, after checking the new one's.

        Args:
            num_classes: what `add_task` was given.
            source: int, the task whose head the new one copies, or `None` for a fresh one.
            from_: what `add_task` was given, for messages.
        """
        if num_classes is not None:
            raise ValueError(
                "`num_classes` should be left out: this model has no head per task. Received: "
                f"num_classes={num_classes!r}"
            )
        return None

    def replace_heads(self, sources: Sequence[int | None], num_classes: list[int]) -> None:
        """Gives each task the head of its source, or a fresh one where that is `None`."""

    def folded_arguments(self, task: int) -> dict[str, Any]:
        """What a subclass's constructor takes for a folded model, beside what all models take."""
        return {}

    def copy_head(self, folded: Any, task: int) -> None:
        """Copies the task's head, or the one that all share, to its folded model."""

    def copy_heads(self, other: Any, heads: Sequence[int | None]) -> None:
        """Copies heads and what they stand on to a model of other tasks: here, what all share.

        Args:
            other: the model.
            heads: list with an entry per task of `other`: the task of this model whose head it
                gets, or `None` to leave it its own.
        """
        self.copy_head(other, 0)

    def _change_tasks(
        self,
        names: list[str],
        factors: tuple[np.ndarray, np.ndarray],
        heads: Sequence[int | None],
        num_classes: list[int] | None,
    ) -> None:
        """Changes the tasks, all being checked: what can still fail comes before the changes."""
        settings = self._compile_settings()
        optimizer = None if settings is None else _fresh(settings["optimizer"])
        self.prompt.replace_tasks(*factors)
        if num_classes is not None:
            self.replace_heads(heads, num_classes)
        changes: dict[str, Any] = {"num_tasks": len(names), "task_names": names}
        if isinstance(self._tasks().prompt_tuning_init_task, list):
            # It had a source for each task there was. The start is in the weights.
            changes |= TASKS_START_DONE
        self._set_config(**changes)
        self._compile_again(settings, optimizer)

    def _set_config(self, **changes: Any) -> None:
        self.config = dataclasses.replace(self.config, **changes)
        self.inputs_checked = dataclasses.replace(self.inputs_checked, config=self.config)

    def _compile_settings(self) -> dict[str, Any] | None:
        """What `compile` was given, with metrics that have seen nothing; `None` where it was not.

        Metrics are made anew because some have a size that follows the number of classes.
        """
        if not self.compiled:
            return None
        settings = dict(self._compile_config.config)
        for name in ("metrics", "weighted_metrics"):
            settings[name] = keras.tree.map_structure(_fresh, settings[name])
        if hasattr(self, "sampler"):  # What a language model's `compile` takes beside Keras's.
            settings["sampler"] = self.sampler
        return settings

    def _compile_again(self, settings: dict[str, Any] | None, optimizer: Any) -> None:
        """Forgets the functions that were compiled for the old tasks, and their reports."""
        self.train_function = self.test_function = self.predict_function = None
        if hasattr(self, "generate_function"):
            self.generate_function = None
        if hasattr(self, "score_functions"):
            self.score_functions = None
        if hasattr(self, "_torch_params"):
            del self._torch_params  # PyTorch's list of a model's variables, made when asked for.
        if settings is None:
            return
        self.compile(**{**settings, "optimizer": optimizer})
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def factors_from(self, sources: Sequence[int | str]) -> tuple[np.ndarray, np.ndarray]:
        """The factors of new tasks.

        Args:
            sources: list with an entry per new task: one of this model's task ids, "average" for
                the tasks' mean, or "shared" for those that give 1.

        Returns:
            Arrays cols (N, M·L, R) and rows (N, R, d).
        """
        state = self.prompt.state_dict()
        cols, rows = state["prefix_task_cols"], state["prefix_task_rows"]

        def one(source: int | str) -> tuple[np.ndarray, np.ndarray]:
            if source == AVERAGE:
                return cols.mean(0), rows.mean(0)
            if isinstance(source, int):
                return cols[source], rows[source]
            # The number of tasks makes it another draw for each task that is added.
            rng = np.random.default_rng([seed_of(self.config), len(cols)])
            alone = dataclasses.replace(
                self._tasks(),
                num_tasks=1,
                task_names=None,
                task_init="ones",
                prompt_tuning_init_task=0,
            )
            factors = task_factors(alone, rows.shape[2], rng)
            return factors["prefix_task_cols"][0], factors["prefix_task_rows"][0]

        found = [one(source) for source in sources]
        return np.stack([c for c, _ in found]), np.stack([r for _, r in found])

    def _tasks(self) -> MultitaskPromptTuningConfig:
        """The config, or an error where the model has no tasks."""
        if not isinstance(self.config, MultitaskPromptTuningConfig):
            raise ValueError(
                "`config` should be a MultitaskPromptTuningConfig for a model to have tasks. "
                f"Received: a model with a {type(self.config).__name__}"
            )
        return self.config

    def source_of(self, from_: Any) -> int | str:
        """A task's id, "average" or "shared", from what `add_task` takes."""
        if from_ is None or (isinstance(from_, str) and from_ in (AVERAGE, SHARED)):
            return from_ or SHARED
        return self._task_id("from_", from_, f"'{AVERAGE}', '{SHARED}', None, or ")

    def _task_id(self, argument: str, task: Any, others: str = "") -> int:
        names = self._tasks().names
        if isinstance(task, str) and task in names:
            return names.index(task)
        is_id = isinstance(task, (int, np.integer)) and not isinstance(task, bool)
        if not is_id or not 0 <= task < len(names):
            raise ValueError(
                f"`{argument}` should be {others}one of the tasks {names}, or an id in "
                f"[0, {len(names)}). Received: {argument}={task!r}"
            )
        return int(task)


def _check_name(argument: str, name: Any, names: Sequence[str]) -> None:
    if not isinstance(name, str) or not name or name in names:
        raise ValueError(
            f"`{argument}` should be a string that is not empty and not yet the name of a task: "
            f"there are {list(names)}. Received: {argument}={name!r}"
        )
    check_task_name(argument, name)


def _fresh(item: Any) -> Any:
    """An optimizer or metric without a state; anything else as it is."""
    if not isinstance(item, (keras.optimizers.Optimizer, keras.Metric)):
        return item
    try:
        return type(item).from_config(item.get_config())
    except Exception as error:  # A class of the user's own may fail in any way.
        raise ValueError(
            "The model should be compiled with an optimizer and metrics that `from_config` can "
            "make anew from `get_config`, as other tasks need a fresh state. Received: a "
            f"{type(item).__name__} with which it fails: {error}"
        ) from error


def _folded_config(config: MultitaskPromptTuningConfig) -> PromptTuningConfig:
    """The config of one ordinary prompt, whose start is done."""
    names = {f.name for f in dataclasses.fields(PromptTuningConfig)} - {"peft_type"}
    return PromptTuningConfig(**{**{name: getattr(config, name) for name in names}, **START_DONE})
