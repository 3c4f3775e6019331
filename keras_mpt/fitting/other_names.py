"""What is taken for ours: misspelt arguments, PEFT's configs, and PEFT's names for what we do."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import keras

from keras_mpt.checks import check_keywords
from keras_mpt.config import PromptTuningConfig

M = TypeVar("M", bound=keras.Model)

# What a PEFT model has, and where it is here.
_PEFT_NAMES = {
    "get_nb_trainable_parameters": "`model.parameter_count()` is how many numbers are trained",
    "save_pretrained": "`model.save_adapter(directory)` writes an adapter that PEFT opens",
    "from_pretrained": "`keras_mpt.load_adapter(base, directory)` opens an adapter",
    "push_to_hub": "`model.save_adapter(directory)` writes the files that go to a hub",
    "add_adapter": "`model.add_task(name)` adds a task",
    "set_adapter": "each row's `task_ids` choose its task",
    "delete_adapter": "`model.remove_task(name)` removes a task",
    "disable_adapter": "`model.backbone` is the model without prompts",
    "unload": "`model.backbone` is the model without prompts",
    "get_base_model": "`model.backbone` is the model without prompts",
    "base_model": "`model.backbone` is the model without prompts",
    "merge_and_unload": "`model.fold(task)` makes one task an ordinary prompt",
    "peft_config": "`model.config` is the config",
    "active_adapter": "each row's `task_ids` choose its task",
    "get_prompt": "`model.prompt(task_ids)` gives prompts",
}
# Arguments of their bases that a user does not give.
_OF_BASES = {"self", "args", "kwargs", "head", "targets", "task", "model_inputs", "has_one_output"}
_OF_KERAS = {"name", "dtype", "trainable", "autocast", "activity_regularizer"}
# What models without classes refuse in words of their own.
_EXPLAINED = {"num_classes"}


def check_config(config: Any) -> None:
    """Refuses what is no config of ours, such as PEFT's.

    Args:
        config: what a model was given.
    """
    if isinstance(config, PromptTuningConfig):
        return
    kind = f"{type(config).__module__.split('.')[0]}.{type(config).__name__}"
    raise ValueError(
        "`config` should be a keras_mpt.PromptTuningConfig or MultitaskPromptTuningConfig. They "
        "have PEFT's fields, and `from_pretrained(directory)` reads what PEFT's `save_pretrained` "
        f"wrote. Received: config of type {kind}"
    )


def check_model_keywords(model: type[keras.Model], given: dict[str, Any]) -> None:
    """Refuses keyword arguments that a class of models does not take.

    Args:
        model: a class of prompt-tuned models, or one that a user has derived.
        given: dict of the arguments.
    """
    known = set(_OF_KERAS)
    for cls in model.__mro__[: model.__mro__.index(keras.Model)]:
        if "__init__" in vars(cls):
            known |= set(inspect.signature(vars(cls)["__init__"]).parameters)
    looked_at = {k: v for k, v in given.items() if k not in _EXPLAINED | _OF_BASES}
    check_keywords(model.__name__, looked_at, known - _OF_BASES)


def explaining(model: type[M]) -> type[M]:
    """Has a class of models say what is meant where a name is misspelt, or PEFT's."""

    def new(cls: type[M], *args: Any, **kwargs: Any) -> M:
        check_model_keywords(cls, kwargs)
        made: M = keras.Model.__new__(cls, *args, **kwargs)
        return made

    def attribute(self: M, name: str) -> Any:
        if name in _PEFT_NAMES:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}: {_PEFT_NAMES[name]}."
            )
        # PyTorch's modules find their variables so; on other backends nobody is left to ask.
        of_torch = getattr(keras.Model, "__getattr__", None)
        if of_torch is not None:
            return of_torch(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    model.__new__ = new  # type: ignore[assignment]
    model.__getattr__ = attribute
    return model
