"""Tasks that come and go after training, and one task's prompt as a model of its own.

The layers and the backbone stay the objects that they are. The variables of the tasks' factors, and
of heads per task, are replaced by longer or shorter ones, and the model is compiled anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_flag, received, task_id
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_labels import LABEL_FIELDS, checked_labels, with_tasks
from keras_mpt.config_values import START_DONE, TASKS_START_DONE, check_task_name
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.recompile import (
    Compiled,
    arguments_afresh,
    by_names,
    check_goals,
    compile_again,
    fresh,
)
from keras_mpt.heads.head import Head
from keras_mpt.models.label_fields import check_label_fields
from keras_mpt.prompts.starts import seed_of, task_factors
from keras_mpt.types import Backbone, Config, Preprocessor

AVERAGE, SHARED = "average", "shared"


class HasTasks(Compiled, Protocol):
    """What these functions ask of a model: a `PromptTunedModel` has it."""

    backbone: Backbone
    head: Head
    model_inputs: ModelInputs
    prompt: Any
    preprocessor: Preprocessor | None
    dtype_policy: Any

    @property
    def config(self) -> PromptTuningConfig:
        """The config."""

    def own_arguments(self) -> Config:
        """The constructor's arguments that not every model has."""

    def set_config(self, config: PromptTuningConfig) -> None:
        """Gives the model another config."""


M = TypeVar("M", bound=HasTasks)


def add_task(
    model: HasTasks,
    name: str,
    from_: str | int | None,
    num_classes: int | None,
    train_shared: bool | None,
    labels: Mapping[str, Any],
) -> int:
    """Adds a task; see `PromptTunedModel.add_task`."""
    config = multitask_config(model)
    names = config.names
    _check_name("name", name, names)
    new = {field: checked_labels(field, own) for field, own in labels.items()}
    changes: Config = {}
    if train_shared is not None:
        is_trained = check_flag("train_shared", train_shared)
        changes = {"train_shared": is_trained, "frozen_tasks": None if is_trained else names}
    source = source_of(model, from_)
    old = range(len(names))
    head = source if isinstance(source, int) and num_classes is None else None
    classes = model.head.classes_with(num_classes, head, from_)
    if head is not None and new["label_names"] is None:  # The classes are copied with it.
        new["label_names"] = (config.label_names or {}).get(names[head])
    kept = with_tasks(vars(config), {n: n for n in names})
    changes |= {field: {**kept[field], name: own} for field, own in new.items()}
    factors = factors_from(model, [*old, source])
    _change_tasks(model, [*names, name], factors, [*old, head], classes, changes)
    return len(names)


def remove_task(model: HasTasks, task: str | int) -> None:
    """Removes a task; see `PromptTunedModel.remove_task`."""
    names = multitask_config(model).names
    removed = task_id("task", task, names)
    if len(names) == 1:
        raise ValueError(
            f"`task` should leave the model a task. Received: task={task!r}, its only one"
        )
    kept = [k for k in range(len(names)) if k != removed]
    classes = model.head.classes_of(kept)
    _change_tasks(model, [names[k] for k in kept], factors_from(model, kept), kept, classes, {})


def rename_task(model: HasTasks, old: str | int, new: str) -> None:
    """Renames a task; see `PromptTunedModel.rename_task`."""
    config = multitask_config(model)
    task = task_id("old", old, config.names)
    _check_name("new", new, config.names)
    arguments = arguments_afresh(model)
    names = [*config.names[:task], new, *config.names[task + 1 :]]
    frozen = [new if n == config.names[task] else n for n in config.frozen_tasks or []]
    labels = with_tasks(vars(config), dict(zip(config.names, names, strict=True)))
    changed = dataclasses.replace(config, task_names=names, frozen_tasks=frozen, **labels)
    model.set_config(changed)
    arguments = by_names(arguments, dict(zip(config.names, names, strict=True)))
    # Not the one that `compile` was given, which Keras may have wrapped to scale the loss.
    compile_again(model, arguments, model.optimizer if model.compiled else None)


def fold(model: M, task: str | int) -> M:
    """One task as a model of one ordinary prompt; see `PromptTunedModel.fold`."""
    config = multitask_config(model)
    k = task_id("task", task, config.names)
    make: Any = type(model)
    folded: M = make(
        model.backbone,
        _folded_config(config, config.names[k]),
        **arguments_for(model, [k], as_one=True),
        initialize=False,
    )
    prompt = to_numpy(model.prompt([k])[0]).astype("float32")
    folded.prompt.set_peft_state_dict({"prompt_embeddings": prompt}, "fold")
    model.head.copy_to(folded.head, [k])
    return folded


def arguments_for(model: HasTasks, of_tasks: Sequence[int], as_one: bool = False) -> Config:
    """The arguments of a model of the same kind that has some of a model's tasks.

    Args:
        model: a prompt-tuned model.
        of_tasks: list of ints. Its tasks whose heads the other gets.
        as_one: bool. Whether the other model has no tasks. Defaults to `False`.

    Returns:
        A dict of the constructor's arguments but for the backbone and the config.
    """
    arguments = {"preprocessor": model.preprocessor, "dtype": model.dtype_policy}
    arguments |= model.own_arguments()
    classes = model.head.classes_of(of_tasks)
    if model.head.has_classes:
        arguments["num_classes"] = classes[0] if as_one and isinstance(classes, list) else classes
    return arguments


def factors_from(model: HasTasks, sources: Sequence[int | str]) -> tuple[np.ndarray, np.ndarray]:
    """The factors of new tasks.

    Args:
        model: a prompt-tuned model with tasks.
        sources: list with an entry per new task: one of the model's task ids, "average" for the
            tasks' mean, or "shared" for those that give 1.

    Returns:
        Arrays cols (N, M·L, R) and rows (N, R, d).
    """
    state = model.prompt.get_peft_state_dict()
    cols, rows = state["prefix_task_cols"], state["prefix_task_rows"]

    def one(source: int | str) -> tuple[np.ndarray, np.ndarray]:
        if source == AVERAGE:
            return cols.mean(0), rows.mean(0)
        if isinstance(source, int):
            return cols[source], rows[source]
        # The number of tasks makes it another draw for each task that is added.
        rng = np.random.default_rng([seed_of(model.config), len(cols)])
        alone = dataclasses.replace(
            multitask_config(model),
            num_tasks=1,
            task_names=None,
            frozen_tasks=None,
            task_init="ones",
            prompt_tuning_init_task=0,
            **with_tasks(vars(model.config), {}),
        )
        factors = task_factors(alone, rows.shape[2], rng)
        return factors["prefix_task_cols"][0], factors["prefix_task_rows"][0]

    found = [one(source) for source in sources]
    return np.stack([c for c, _ in found]), np.stack([r for _, r in found])


def source_of(model: HasTasks, from_: Any) -> int | str:
    """A task's id, "average" or "shared", from what `add_task` takes."""
    if from_ is None or (isinstance(from_, str) and from_ in (AVERAGE, SHARED)):
        return from_ or SHARED
    names = multitask_config(model).names
    return task_id("from_", from_, names, f"'{AVERAGE}', '{SHARED}', None, or ")


def multitask_config(model: HasTasks) -> MultitaskPromptTuningConfig:
    """The model's config, or an error where it has no tasks."""
    if not isinstance(model.config, MultitaskPromptTuningConfig):
        raise ValueError(
            "`config` should be a MultitaskPromptTuningConfig for a model to have tasks. "
            f"Received: a model with a {type(model.config).__name__}"
        )
    return model.config


def _change_tasks(
    model: HasTasks,
    names: list[str],
    factors: tuple[np.ndarray, np.ndarray],
    heads: Sequence[int | None],
    num_classes: int | list[int] | None,
    changes: Config,
) -> None:
    """Changes the tasks, all being checked: what can still fail comes before the changes."""
    config, stay = multitask_config(model), {name: name for name in names}
    still_frozen = [name for name in config.frozen_tasks or [] if name in stay]
    changes = {"frozen_tasks": still_frozen, **with_tasks(vars(config), stay), **changes}
    changes |= {"num_tasks": len(names), "task_names": names}
    if isinstance(config.prompt_tuning_init_task, list):
        # It had a source for each task there was. The start is in the weights.
        changes |= TASKS_START_DONE
    changed = dataclasses.replace(config, **changes)
    model_inputs = dataclasses.replace(model.model_inputs, config=changed)
    check_label_fields(model_inputs, model.head, num_classes)
    arguments = by_names(arguments_afresh(model), stay)
    check_goals(model, arguments, names, num_classes)
    optimizer = None if arguments is None else fresh(arguments["optimizer"])
    model.prompt.replace_tasks(*factors)
    model.head.replace_tasks(heads, num_classes)
    model.set_config(changed)
    compile_again(model, arguments, optimizer)


def _check_name(argument: str, name: Any, names: Sequence[str]) -> None:
    if not isinstance(name, str) or not name or name in names:
        raise ValueError(
            f"`{argument}` should be a string that is not empty and not yet the name of a task: "
            f"there are {received(list(names))}. Received: {argument}={name!r}"
        )
    check_task_name(argument, name)


def _folded_config(config: MultitaskPromptTuningConfig, task: str) -> PromptTuningConfig:
    """The config of one task's ordinary prompt, whose start is done."""
    names = {f.name for f in dataclasses.fields(PromptTuningConfig)} - {"peft_type"}
    labels = {field: (getattr(config, field) or {}).get(task) for field in LABEL_FIELDS}
    fields = {**{name: getattr(config, name) for name in names}, **START_DONE, **labels}
    return PromptTuningConfig(**fields)
