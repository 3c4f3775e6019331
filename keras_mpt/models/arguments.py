"""What files hold of a model: its arguments, and the parts of its adapter."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, TypeVar

import keras

from keras_mpt import _keras
from keras_mpt.adapters.directory import AdapterParts
from keras_mpt.checks import received
from keras_mpt.config import config_from_dict
from keras_mpt.fitting.frozen import check_frozen, set_trainable
from keras_mpt.fitting.masked_tokens import MaskedTokens
from keras_mpt.fitting.measuring import measured_now
from keras_mpt.fitting.saving import not_h5
from keras_mpt.layer_settings import apply_settings, left_out_arguments, read_settings
from keras_mpt.types import Config, Task

M = TypeVar("M", bound=Any)


def saved_arguments(model: Any) -> Config:
    """The constructor's arguments that every prompt-tuned model has, as JSON values."""
    if _keras.is_saving_h5():
        raise not_h5("….h5")
    check_frozen(model)
    model.config.check_labels()
    tokenizer = getattr(model.preprocessor, "tokenizer", None)
    backbone = keras.saving.serialize_keras_object(model.backbone)
    backbone["config"] |= left_out_arguments(model.backbone)
    return {
        "backbone": backbone,
        "backbone_settings": read_settings(model.backbone),
        "config": model.config.to_dict(),
        "preprocessor": keras.saving.serialize_keras_object(model.preprocessor),
        # keras-hub's own config of a tokenizer leaves out those that a checkpoint named.
        "special_tokens": _keras.special_tokens(tokenizer) if tokenizer is not None else {},
        "layers_trainable": [layer.trainable for layer in model.layers],
    }


def rebuilt(cls: type[M], saved: Config, custom_objects: Any = None) -> M:
    """A model of the constructor's arguments that were saved; its weights are loaded afterwards.

    Args:
        cls: the model's class.
        saved: what its `get_config` gave.
        custom_objects: as Keras has them. Defaults to `None`.
    """
    arguments = dict(saved)
    for name in ("backbone", "preprocessor"):
        arguments[name] = keras.saving.deserialize_keras_object(arguments[name], custom_objects)
    special_tokens = arguments.pop("special_tokens", {})
    if special_tokens:
        _keras.set_special_tokens(arguments["preprocessor"].tokenizer, special_tokens)
    apply_settings(arguments["backbone"], arguments.pop("backbone_settings", {}))
    trainable = arguments.pop("trainable", True), arguments.pop("layers_trainable", [])
    config = config_from_dict(arguments.pop("config"))
    make: Any = cls
    # A tokenizer's vocabulary is loaded with the weights: words have no tokens yet.
    silent = dataclasses.replace(config, label_words=None)
    model: M = make(**arguments, config=silent, initialize=False)
    model.set_config(dataclasses.replace(model.config, label_words=config.label_words))
    set_trainable(model, *trainable)
    # What `load_model(compile=False)` asks for; else Keras compiles next, as it was saved.
    model.optimizer, model.compiled = None, False
    return model


def adapter_parts(model: Any) -> AdapterParts:
    """What of a model its adapter is made of."""
    return AdapterParts(
        config=model.config,
        prompt=model.prompt,
        backbone=model.backbone,
        embedding_scale=model.embedding_scale,
        head_weights=model.head.weights(),
        head_settings=model.head_settings(),
        model=type(model).__name__,
        is_masked=isinstance(model.targets, MaskedTokens),
        measured=measured_now(model),
    )


def hub_model(found: type[Task], head_config: Config | None, **kwargs: Any) -> Task:
    """A keras-hub task, with a user's or an adapter's further arguments for it.

    Args:
        found: the task's class.
        head_config: dict of further arguments, or `None`.
        **kwargs: the arguments that are ours.

    Raises:
        ValueError: arguments that it does not have, or values that it cannot take.
    """
    # keras-hub's tasks take any argument, and leave out what they do not know.
    known = {*inspect.signature(found.__init__).parameters, "name", "dtype", "trainable"}
    if not isinstance(head_config, (dict, type(None))) or set(head_config or {}) - known:
        raise _not_arguments(found, head_config, "")
    try:
        return found(**kwargs, **(head_config or {}))
    except (TypeError, ValueError) as error:
        if not head_config:
            raise
        raise _not_arguments(found, head_config, f": {error}") from error


def _not_arguments(found: type[Task], head_config: Any, reason: str) -> ValueError:
    return ValueError(
        f"`head_config` should be a dict of arguments that keras-hub's {found.__name__} takes. "
        f"Received: head_config={received(head_config)}{reason}"
    )
