"""What keras-hub's converters drop, set right on the backbone that they made.

Each rule reads a checkpoint's configuration or its weights and changes every layer that it
concerns, whatever the family; where a family has nothing of the kind it changes nothing. Numbers go
into the weights where they can, else into attributes of layers, which `layer_settings.py` keeps.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_mpt import _keras
from keras_mpt.arrays import to_numpy
from keras_mpt.hugging_face.checkpoint_config import rope_type, sides, text_part
from keras_mpt.hugging_face.weights import names, tensor
from keras_mpt.hugging_face.windows import SLIDING, set_windows
from keras_mpt.layer_settings import SYNONYMS, activation_name, set_activation
from keras_mpt.types import Backbone, Config

_EPSILONS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon")
_ACTIVATIONS = ("hidden_act", "activation_function", "activation")
# Families without a segment input add one row of this table to every token.
_SEGMENTS = "token_type_embeddings.weight"


def mend(backbone: Backbone, config: Config, weights: Any) -> None:
    """Sets right what a converter dropped.

    Args:
        backbone: what the converter made.
        config: the checkpoint's configuration.
        weights: what `open_weights` gave.
    """
    for side, part in sides(config).items():
        layers = text_layers(backbone, side)
        _epsilons(layers, part)
        _activations(layers, config["model_type"], part)
        _rotary(layers, part)
        _query_scale(layers, part)
    set_windows(backbone, config["model_type"], text_part(config))
    _segments(backbone, weights)


def text_layers(backbone: Backbone, side: str) -> list[keras.layers.Layer]:
    """All layers, and those within them, of a side but those of images and sounds."""
    others = {id(getattr(backbone, f"{name}_encoder", None)) for name in ("vision", "audio")}
    outer = [x for x in backbone.layers if side in x.name and id(x) not in others]
    return [x for layer in outer for x in (layer, *_keras.sublayers(layer))]


def epsilon_of(config: Config) -> tuple[str, float] | None:
    """The epsilon of a configuration's norms, and the field that says it."""
    return next(((n, float(config[n])) for n in _EPSILONS if config.get(n) is not None), None)


def activation_of(kind: str, config: Config) -> tuple[str, str] | None:
    """The activation of its feed-forward layers by our name, and the field that says it."""
    if kind == "esm":  # ESM's files name one that no ESM reads.
        return None
    name = next((n for n in _ACTIVATIONS if config.get(n) is not None), None)
    return None if name is None else (name, str(SYNONYMS.get(config[name], config[name])))


def _epsilons(layers: list[keras.layers.Layer], config: Config) -> None:
    """A configuration has one for all norms; keras-hub's layers have constants here and there."""
    _, epsilon = epsilon_of(config) or (None, None)
    for layer in layers if epsilon is not None else ():
        if isinstance(vars(layer).get("epsilon"), float):
            layer.epsilon = epsilon


def _activations(layers: list[keras.layers.Layer], kind: str, config: Config) -> None:
    """BERT's GELU is exact in published checkpoints, and tanh's in keras-hub's BERT, always."""
    _, activation = activation_of(kind, config) or ("", "")
    for layer in layers if activation else ():
        if activation_name(vars(layer).get("activation")) is not None:
            set_activation(layer, activation)


def _rotary(layers: list[keras.layers.Layer], config: Config) -> None:
    """One wavelength for all layers, and positions that are counted in smaller steps."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    theta = config.get("rope_theta", rope.get("rope_theta"))
    has_one = "rope_local_base_freq" not in config and SLIDING not in rope
    if theta is None or not has_one or rope_type(rope) not in (None, "default", "linear"):
        return
    for layer in layers:
        if "max_wavelength" in vars(layer) and "scaling_factor" in vars(layer):
            layer.max_wavelength = float(theta)
            layer.scaling_factor = float(rope.get("factor", 1.0))


def _query_scale(layers: list[keras.layers.Layer], config: Config) -> None:
    """Gemma 2's and 3's queries are divided by the root of a number that is not always their width.

    keras-hub knows two such numbers. What is missing goes into the query's weights: those of its
    norm, 1 + w, where it has one, else its kernel.
    """
    wanted = config.get("query_pre_attn_scalar")
    for layer in layers if wanted is not None else ():
        # T5Gemma's have the number itself, beside Gemma's attributes, which they do not read.
        says_it = "query_pre_attn_scalar" in vars(layer)
        has_two = "query_head_dim_normalize" in vars(layer) and hasattr(layer, "query_dense")
        if says_it or not has_two:
            continue
        has_own = layer.query_head_dim_normalize
        width = layer.head_dim if has_own else layer.hidden_dim // layer.num_query_heads
        factor = math.sqrt(width / wanted)
        norm = getattr(layer, "query_norm", None)
        if norm is not None:
            norm.scale.assign((1 + to_numpy(norm.scale)) * factor - 1)
        else:
            kernel = layer.query_dense.kernel
            kernel.assign(to_numpy(kernel) * factor)


def _segments(backbone: Backbone, weights: Any) -> None:
    """The first row of RoBERTa's table of segments, added to every position."""
    unread = [name for name in names(weights) - weights.read if name.endswith(_SEGMENTS)]
    embedding = getattr(getattr(backbone, "embeddings", None), "position_embedding", None)
    if len(unread) != 1 or embedding is None:
        return
    row = tensor(weights, unread[0])[0]
    table = embedding.position_embeddings
    table.assign(to_numpy(table).astype(np.float32) + row)
