"""The source stage's first half: a teacher per task."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mpt.adapters.reading import has_adapter, read_adapter
from keras_mpt.checks import received
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_labels import checked_labels_of_tasks
from keras_mpt.config_values import check_task_name
from keras_mpt.data.columns import as_columns, settled
from keras_mpt.files.paths import check_target, is_file_name
from keras_mpt.fitting.other_names import check_config
from keras_mpt.heads.num_classes import in_order, is_listed
from keras_mpt.models.prompt_tune import prompt_tune
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.training.recipe import Recipe, check_recipe
from keras_mpt.training.teachers import check_teacher
from keras_mpt.types import Backbone, Task

# Of teachers that are trained by no recipe.
_BATCH, _EPOCHS = 32, 5


def train_teachers(
    base: Backbone | Task,
    datasets: Mapping[str, tuple[Any, ...]],
    directory: str | os.PathLike[str],
    config: PromptTuningConfig,
    *,
    num_classes: Mapping[str, int] | Sequence[int] | int | None = None,
    label_words: Mapping[str, list[str]] | None = None,
    label_names: Mapping[str, list[str]] | None = None,
    optimizer: Callable[[], Any] | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    callbacks: Sequence[Any] | None = None,
    seed: int | None = None,
    verbose: Any = "auto",
    recipe: Recipe | None = None,
    **kwargs: Any,
) -> dict[str, Path]:
    """Trains one ordinary prompt per source task, and keeps each as a PEFT PROMPT_TUNING adapter.

    A task whose adapter is there already is left as it is, whatever data it was trained on, so an
    interrupted call goes on with the task that it was at. The data of all tasks that are to be
    trained are checked before the first step of the first.

    Args:
        base: a keras-hub backbone or task, as `prompt_tune` takes it.
        datasets: dict of task name to `(x, y)`, or `(x,)` where the preprocessor makes the targets;
            `x` is a dict of arrays, or what the preprocessor takes: a list of strings, or a pair of
            such lists.
        directory: string. Each teacher goes to `directory/<task name>`.
        config: a `PromptTuningConfig`.
        num_classes: the tasks' numbers of classes, for classifiers: a dict by name, a list in the
            order of `datasets`, or one int for all. Defaults to `None`.
        label_words, label_names: dicts of task name to list of strings, as in the config; where
            given, each teacher has its own task's. They default to `None`: the config's.
        optimizer: function without arguments that makes an optimizer. Defaults to `None`: the
            recipe's, or the model's own, Adam at 0.005.
        batch_size: int. Defaults to `None`: the recipe's, or 32.
        epochs: int. Passes over a task's rows, in which a recipe's rates then rise and fall.
            Defaults to `None`: as many as the recipe's steps need, or 5.
        callbacks: list of `keras.callbacks.Callback`, for each task's `fit`. Defaults to `None`.
        seed: int. Each task's training starts from it, every dropout of the backbone included, so
            that a task comes out the same whether or not others were trained before it. `None`
            leaves the global seed alone. Defaults to `None`.
        verbose: as in `keras.Model.fit`. Defaults to `"auto"`.
        recipe: a `keras_mpt.recipes.Recipe` that each teacher is trained by; what is given above
            goes before it. Defaults to `None`.
        **kwargs: further arguments of the models, such as `preprocessor` or `pooling`.

    Returns:
        A dict of task name to its adapter's directory.

    Raises:
        ValueError: a task without rows, labels that exceed its classes, or an adapter in the
            directory that has another size, task type or head, or was made on another backbone.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        ids = np.array([[2, 5, 6, 3], [2, 7, 8, 3]])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": 0 * ids}
        datasets = {"tone": (x, np.array([0, 1])), "topic": (x, np.array([2, 0]))}
        config = keras_mpt.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
        teachers = keras_mpt.train_teachers(
            backbone, datasets, tmp_path, config, num_classes={"tone": 2, "topic": 3}, epochs=1
        )
        assert sorted(teachers) == ["tone", "topic"]
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3.1; Lester et al. 2021.
    """
    datasets = _checked(datasets, config)
    names = list(datasets)
    if recipe is not None:
        check_recipe(recipe)
    classes = _classes(names, num_classes)
    configs = _configs(names, config, {"label_words": label_words, "label_names": label_names})
    directories = {
        name: check_target("directory", Path(check_target("directory", directory)) / name)
        for name in names
    }
    backbone = getattr(base, "backbone", base)
    waiting = {}
    for name in names:
        _set_seed(seed)
        model = _teacher(base, configs[name], classes[name], kwargs)
        if has_adapter(directories[name]):
            adapter = read_adapter(directories[name])
            check_teacher(name, adapter, configs[name], backbone, model.head_settings())
        else:
            waiting[name] = model, *_prepared(model, name, datasets[name])
    while waiting:
        name = next(iter(waiting))
        # No longer held once it is trained: what it was compiled to is large.
        model, x, y, sample_weight = waiting.pop(name)
        if verbose:
            print(f"Teacher {len(names) - len(waiting)}/{len(names)}: {name}", flush=True)
        _set_seed(seed, model)
        own = None if recipe is None else _recipe_of(recipe, x, batch_size, epochs)
        if optimizer is not None:
            model.compile(optimizer=optimizer())
        elif own is not None:
            model.compile(**own.compile_arguments(model))
        if own is not None:
            arguments = own.fit_arguments(x)
        else:
            arguments = {
                "batch_size": _BATCH if batch_size is None else batch_size,
                "epochs": _EPOCHS if epochs is None else epochs,
            }
        arguments["callbacks"] = [*arguments.get("callbacks", ()), *(callbacks or ())]
        model.fit(x, y, sample_weight=sample_weight, verbose=verbose, **arguments)
        # A config may be there, of an adapter without weights: no teacher.
        model.save_adapter(directories[name], overwrite=True)
    return directories


def _set_seed(seed: int | None, model: PromptTunedModel | None = None) -> None:
    """Keras's global seed, and that of each dropout of the model: the tasks share a backbone."""
    if seed is None:
        return
    keras.utils.set_random_seed(seed)
    states = [v for v in getattr(model, "variables", ()) if v.name == "seed_generator_state"]
    for i, state in enumerate(states):
        state.assign(np.array([seed, i]))


def _recipe_of(recipe: Recipe, x: Any, batch_size: int | None, epochs: int | None) -> Recipe:
    """The recipe with what was given beside it."""
    if batch_size is not None:
        recipe = dataclasses.replace(recipe, batch_size=batch_size)
    if epochs is None and recipe.steps is None:
        epochs = _EPOCHS
    return recipe if epochs is None else recipe.for_epochs(epochs, x)


def _teacher(
    base: Backbone | Task, config: PromptTuningConfig, classes: int | None, kwargs: Any
) -> PromptTunedModel:
    given = {} if classes is None else {"num_classes": classes}
    return prompt_tune(base, config, **given, **kwargs)


def _prepared(model: PromptTunedModel, name: str, data: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """A task's data as `fit` takes them, with errors that name the task."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
    try:
        x = as_columns(x)
        x = x if isinstance(x, dict) else {"text": x}
        return model.prepared(x, y, sample_weight, needs_targets=True)
    except ValueError as error:
        raise ValueError(f"In the data of task {name!r}: {error}") from None


def _checked(datasets: Any, config: Any) -> dict[str, Any]:
    """The data, with columns that can be read more than once."""
    check_config(config)
    if isinstance(config, MultitaskPromptTuningConfig):
        raise ValueError(
            "`config` should be a PromptTuningConfig: a teacher has one ordinary prompt. Received: "
            f"a {type(config).__name__}"
        )
    if not isinstance(datasets, Mapping) or not datasets:
        raise ValueError(
            "`datasets` should be a dict of task name to data, with a task at least. Received: "
            f"datasets={datasets!r}"
        )
    found = {}
    for name, data in datasets.items():
        if not is_file_name(name):
            raise ValueError(
                "`datasets` should have names that a folder can have. Received: a task named "
                f"{received(name)}"
            )
        check_task_name("datasets", name)
        x = settled(data[0]) if isinstance(data, (tuple, list)) and data else None
        first = next(iter(x.values()), None) if isinstance(x, dict) else x
        first = first[0] if isinstance(first, tuple) and first else first
        if first is None or len(first) == 0:
            raise ValueError(
                f"`datasets` should have rows for each task. Received: none for task {name!r}"
            )
        # Of a table the model is to see all columns.
        found[name] = (x if isinstance(data[0], Mapping) else data[0], *data[1:])
    return found


def _configs(
    names: list[str], config: PromptTuningConfig, labels: Mapping[str, Any]
) -> dict[str, PromptTuningConfig]:
    """Each task's config, with its own labels."""
    given = {
        field: checked_labels_of_tasks(field, own, names)
        for field, own in labels.items()
        if own is not None
    }
    of_tasks: dict[str, dict[str, Any]] = {
        name: {field: (own or {}).get(name) for field, own in given.items()} for name in names
    }
    return {name: dataclasses.replace(config, **own) for name, own in of_tasks.items()}


def _classes(names: list[str], num_classes: Any) -> dict[str, int | None]:
    num_classes = in_order(num_classes, names, may_name_others=True)
    if is_listed(num_classes):
        if len(num_classes) != len(names):
            raise ValueError(
                f"`num_classes` should have one entry per task of {names}. Received: "
                f"num_classes={num_classes!r}"
            )
        return dict(zip(names, num_classes, strict=True))
    return dict.fromkeys(names, num_classes)
