"""What layers compute with that their model's own config need not carry.

keras-hub's backbones rebuild their layers from a few arguments: an epsilon or an activation that
was set on a layer, as `keras_mpt.backbone_from_pretrained` does, is not among them. So a
prompt-tuned model keeps them beside its backbone's config, and an adapter notes which it had.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import keras

from keras_mpt import _keras
from keras_mpt.types import Config, Tensor

# Attributes that layers read when they are called: numbers and flags.
_NUMBERS = (
    "epsilon",
    "max_wavelength",
    "scaling_factor",
    "sliding_window",
    "sliding_window_size",
    "use_sliding_window_attention",
)
ACTIVATION = "activation"


@keras.saving.register_keras_serializable(package="keras_mpt")
def gelu_new(x: Tensor) -> Tensor:
    """GELU by its tanh formula, transformers' "gelu_new"; it has a name, so that it can be saved.

    Args:
        x: float tensor.

    Returns:
        A tensor of its shape.
    """
    return keras.activations.gelu(x, approximate=True)


# By transformers' names.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": keras.activations.relu,
    "gelu": keras.activations.gelu,
    "gelu_new": gelu_new,
    "silu": keras.activations.silu,
}
# The same formulas in `keras.ops`; its GELU is tanh's by default.
_OPERATIONS = (
    ("relu", keras.ops.relu),
    ("gelu_new", keras.ops.gelu),
    ("silu", keras.ops.silu),
    ("silu", keras.ops.swish),
)
# What else they are called: by transformers, and keras-hub's function of the same formula.
SYNONYMS = {"gelu_pytorch_tanh": "gelu_new", "gelu_approximate": "gelu_new", "swish": "silu"}


def activation_name(function: Any) -> str | None:
    """Which of `ACTIVATIONS` a function is, or `None`.

    Args:
        function: a layer's activation, or what it has in that place.
    """
    for name, known in (*ACTIVATIONS.items(), *_OPERATIONS):
        if function is known:
            return name
    return SYNONYMS.get(getattr(function, "__name__", ""))


def left_out_arguments(backbone: keras.Model) -> Config:
    """The arguments that a backbone's own config leaves out, as it was made with them.

    keras-hub 0.32 leaves out `tie_word_embeddings` (Llama) and what mixtures of experts are
    balanced by: rebuilt, such a backbone has other weights, or another loss.

    Args:
        backbone: a model.

    Returns:
        A dict by name, of plain values.
    """
    given = backbone.get_config()
    names = [n for n in inspect.signature(type(backbone).__init__).parameters if n not in given]
    found = {name: vars(backbone).get(name) for name in names}
    return {n: value for n, value in found.items() if isinstance(value, (bool, int, float, str))}


def read_settings(backbone: keras.Model) -> Config:
    """Every such setting of a model's layers, in the order of the layers.

    Args:
        backbone: a model.

    Returns:
        A dict from an attribute's name to a list of its values, as JSON values.
    """
    layers = _keras.sublayers(backbone)
    found = {name: [vars(x)[name] for x in layers if _has_number(x, name)] for name in _NUMBERS}
    names = [activation_name(vars(x).get(ACTIVATION)) for x in layers]
    found[ACTIVATION] = [name for name in names if name is not None]
    return {name: values for name, values in found.items() if values}


def apply_settings(backbone: keras.Model, settings: Config) -> None:
    """Gives the layers of a rebuilt model what `read_settings` found.

    Args:
        backbone: a model of the same class and config.
        settings: what `read_settings` gave.

    Raises:
        ValueError: the model has other layers.
    """
    for name, values in settings.items():
        layers = [x for x in _keras.sublayers(backbone) if _has(x, name)]
        if len(layers) != len(values):
            raise ValueError(
                f"`backbone` should have {len(values)} layers with `{name}`, as when it was saved. "
                f"Received: a {type(backbone).__name__} with {len(layers)}"
            )
        for layer, value in zip(layers, values, strict=True):
            _set(layer, name, value)


def settings_difference(noted: Any, backbone: keras.Model) -> str | None:
    """Which values of a setting differ from noted ones, in words, or `None`.

    Args:
        noted: what `distinct_settings` gave, or something from a file.
        backbone: a model.
    """
    found = distinct_settings(backbone)
    for name, values in noted.items() if isinstance(noted, dict) else ():
        if name in found and not _alike(values, found[name]):
            return f"with `{name}` {values} of its layers, not {found[name]}"
    return None


def distinct_settings(backbone: keras.Model) -> Config:
    """The values that occur, of each setting.

    Args:
        backbone: a model.

    Returns:
        A dict from an attribute's name to a list of different values, sorted.
    """
    return {
        name: sorted({v for v in values if v is not None})
        for name, values in read_settings(backbone).items()
    }


def _has(layer: keras.layers.Layer, name: str) -> bool:
    if name == ACTIVATION:
        return activation_name(vars(layer).get(ACTIVATION)) is not None
    return _has_number(layer, name)


def _has_number(layer: keras.layers.Layer, name: str) -> bool:
    return isinstance(vars(layer).get(name, ""), (int, float, type(None)))


def _set(layer: keras.layers.Layer, name: str, value: Any) -> None:
    if name == ACTIVATION:
        set_activation(layer, value)
    elif vars(layer)[name] != value:
        setattr(layer, name, value)


def set_activation(layer: keras.layers.Layer, name: str) -> None:
    """Gives a layer one of `ACTIVATIONS`, where it has another formula.

    Args:
        layer: a layer that has one.
        name: string. Which.
    """
    if activation_name(vars(layer)[ACTIVATION]) != name:
        setattr(layer, ACTIVATION, ACTIVATIONS[name])


def _alike(a: Any, b: list[Any]) -> bool:
    """Whether two lists hold the same names, or numbers as near as JSON keeps them."""
    if not isinstance(a, list) or len(a) != len(b):
        return False
    return all(x == y or _are_close(x, y) for x, y in zip(a, b, strict=True))


def _are_close(a: Any, b: Any) -> bool:
    return isinstance(a, float) and isinstance(b, float) and math.isclose(a, b)
