"""What keras-hub's tasks allocate for keys and values, and what their blocks call it."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from keras_mpt._keras import hub_cache_builder
from keras_mpt.splicing.view import View
from keras_mpt.types import Task, Tensor, Tensors

Cache = list[Tensors]
"""What each layer keeps: a tensor of keys and values, or a pair of them."""


def allocated(task: Task, length: int) -> Tensors:
    """The empty cache that the task makes for one row."""
    made: list[Tensors] = []

    def call_with_cache(token_ids: Tensor, cache: Tensors, *args: Any, **kwargs: Any) -> Any:
        made.append(cache)
        return None, None, cache

    build_cache(View(task, call_with_cache=call_with_cache), ops.zeros((1, length), "int32"))
    return made[0]


def handed_to_layers(task: Task) -> tuple[Cache, int]:
    """What a task hands to each of its layers for 2 rows of 8 tokens; and how wide these are."""
    parts: Cache = []
    widths: list[int] = []

    def call(x: Tensor, **given: Any) -> tuple[Tensor, Tensors]:
        widths.append(x.shape[-1])
        parts.append(next(v for name, v in given.items() if name.endswith("cache")))
        return x, parts[-1]

    backbone = task.backbone
    views = [View(layer, __call__=call) for layer in backbone.transformer_layers]
    view = View(task, backbone=View(backbone, transformer_layers=views))
    build_cache(view, ops.zeros((2, 8), "int32"))
    return parts, widths[0]


def build_cache(view: View, token_ids: Tensor) -> Cache:
    """The task's `_build_cache` on text alone: what it takes for images and sounds is `None`."""
    build = hub_cache_builder(view)
    assert build is not None
    names = list(inspect.signature(build).parameters)[1:]
    given = {name: None for name in names}
    if "padding_mask" in given:
        given["padding_mask"] = ops.ones_like(token_ids)
    return build(token_ids, **given)[1]


def mask_name(layer: keras.layers.Layer) -> str | None:
    """What a layer calls its padding mask."""
    names = inspect.signature(layer.call).parameters
    return next((name for name in names if name.endswith("padding_mask")), None)


def place_names(layer: keras.layers.Layer) -> list[str]:
    """What a layer calls the place of new tokens, where it names it; what it only hands on, Keras
    wants to be a tensor beside tensors.
    """
    names = inspect.signature(layer.call).parameters
    return [name for name in names if name.endswith("cache_update_index")]


def differing_axis(short: Tensor, long: Tensor) -> int | None:
    """The one axis whose length differs, counted from the last, or `None`."""
    axes = [i for i, (a, b) in enumerate(zip(short.shape, long.shape, strict=True)) if a != b]
    return axes[0] - len(short.shape) if len(axes) == 1 else None


def empty_like(tensor: Tensor, rows: int | Tensor, length: int | Tensor) -> Tensor:
    """Zeros for so many tokens' keys and values, as a tensor (…, length, heads, dim) has them."""
    return ops.zeros((rows, *tensor.shape[1:-3], length, *tensor.shape[-2:]), tensor.dtype)
