"""Compiling a model anew as it was, when the variables that it trains are others than before."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from typing import Any, Protocol

import keras

from keras_mpt import _keras
from keras_mpt.fitting.frozen import HasFrozen, check_frozen
from keras_mpt.fitting.kept import Kept
from keras_mpt.fitting.objective import Objective, is_by_task
from keras_mpt.fitting.targets import Targets
from keras_mpt.types import Config


class Compiled(HasFrozen, Protocol):
    """What these functions ask of a model: a `Fitting` has it."""

    kept: Kept
    targets: Targets
    has_one_output: bool
    # As `keras.Model` has them.
    compiled: Any
    compile: Any
    optimizer: Any

    def compile_arguments(self) -> Config:
        """What `compile` was given."""

    def forget_compiled(self) -> None:
        """Forgets what was compiled for the variables that there were."""


def arguments_afresh(model: Compiled) -> Config | None:
    """What `compile` was given, with metrics that have seen nothing; `None` where it was not.

    Metrics are made anew because some have a size that follows the number of classes.
    """
    if not model.compiled:
        return None
    arguments = model.compile_arguments()
    for name in ("metrics", "weighted_metrics"):
        arguments[name] = keras.tree.map_structure(fresh, arguments[name])
    return arguments


def by_names(arguments: Config | None, names: dict[str, str]) -> Config | None:
    """What `compile` was given by tasks, for those that there are, by their new names.

    Args:
        arguments: what `arguments_afresh` gave.
        names: dict of old to new name.
    """
    if arguments is None:
        return None
    return arguments | {
        argument: {names[k]: value for k, value in arguments[argument].items() if k in names}
        for argument in Objective.arguments
        if is_by_task(arguments[argument])
    }


def check_goals(
    model: Compiled,
    arguments: Config | None,
    names: Sequence[str],
    num_classes: int | Sequence[int] | None,
) -> None:
    """Refuses tasks that a model cannot be compiled for as it was.

    Args:
        model: a model.
        arguments: what `by_names` gave.
        names: the tasks' names.
        num_classes: int, or each task's number of classes; `None` where there are no classes.
    """
    if arguments is None or not model.has_one_output:
        return
    setting = model.targets.setting(names)
    if setting.classes is not None:
        setting = dataclasses.replace(setting, classes=num_classes)
    Objective(setting, **{name: arguments[name] for name in Objective.arguments})


def compile_again(model: Compiled, arguments: Config | None, optimizer: Any) -> None:
    """Forgets what was compiled, and compiles with another optimizer.

    Args:
        model: a model.
        arguments: what `arguments_afresh` gave.
        optimizer: a `keras.Optimizer` or `None`.
    """
    model.forget_compiled()
    if arguments is None:
        return
    model.compile(**{**arguments, "optimizer": optimizer})
    if model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def follow_trained(model: Compiled) -> None:
    """Compiles a model anew where its optimizer was built for other variables than it now trains.

    Keras leaves that to the user, and trains on with what was compiled before. The optimizer is
    fresh: its state is laid out by its variables.
    """
    check_frozen(model)
    model.kept.settle()
    optimizer = model.optimizer if model.compiled else None
    if optimizer is None or not optimizer.built:
        return
    built_for = [id(v) for v in _keras.variables_of_optimizer(optimizer)]
    if built_for != [id(v) for v in model.trainable_variables]:
        compile_again(model, arguments_afresh(model), fresh(optimizer))


def forget_if_changed(model: Any) -> None:
    """Forgets what was compiled of a model whose variables, their layers or its words changed.

    Whoever has the backbone may quantize it; TensorFlow would go on with what it was.

    Args:
        model: a `Fitting`.
    """
    variables = [(id(v), v.dtype, v.trainable) for v in model.variables]
    layers = _keras.sublayers(model)
    policies = [layer.dtype_policy.name for layer in layers]
    words = repr(model.model_inputs.config.label_words)  # Steps that were compiled hold them.
    # One number: Keras would track a list on the model.
    now = hash((*variables, *policies, words, *(s for own in layers for s in _settings(own))))
    if model.compiled_for not in (None, now):
        model.forget_compiled()
        if hasattr(model, "kept_prompts"):  # Of a causal language model.
            model.kept_prompts.clear()
    model.compiled_for = now


def _settings(layer: Any) -> list[tuple[str, Any]]:
    """A layer's public numbers, words and functions, such as LoRA's `lora_alpha`: no variables."""
    own = [(name, value) for name, value in vars(layer).items() if not name.startswith("_")]
    found = [(n, v) for n, v in own if isinstance(v, (int, float, str))]
    return found + [(n, id(v)) for n, v in own if isinstance(v, types.FunctionType)]


def fresh(item: Any) -> Any:
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
