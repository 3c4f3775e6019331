"""A causal model's keys and values after a prompt: computed once per prompt, not once per row.

In a causal model nothing before a token depends on it, so the prompt's keys and values are the same
in every row that has the prompt. keras-hub's `call_with_cache` continues from there, in generation
and in training alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mpt.splicing import slice_update_gradient
from keras_mpt.splicing.splice import Splice
from keras_mpt.splicing.view import View

# Where keras-hub 0.32's own cached path does not compute what its model does. A test compares every
# other family's with the splice.
_NOT_THE_MODEL = {
    "GPTNeoXBackbone": "each cached step turns its query as if it stood at the first position",
}
# Where it does so for rows without padding on their left alone.
_NOT_BEHIND_PADDING = {
    "FalconBackbone": "the model counts a row's positions without padding, the cached path with it",
}


class PrefixCache:
    """What a task's `call_with_cache` needs to go on behind a prompt; made by `prefix_cache`.

    Args:
        task: a `keras_hub.models.CausalLM`.
        splice: the model's `Splice`.
        length_axes: for each tensor of the task's cache, its axis of positions, counted from the
            last axis: a layer's part of the cache has fewer axes in front.
    """

    def __init__(self, task: Any, splice: Splice, length_axes: Any) -> None:
        self.task, self.length = task, splice.num_virtual_tokens
        self.length_axes = length_axes
        # Whether `behind` is right whatever the padding.
        self.takes_padding = type(task.backbone).__name__ not in _NOT_BEHIND_PADDING
        # What a layer gets and gives is one tensor, or a pair of keys and values.
        self._length_axis = keras.tree.flatten(length_axes)[0]

    def after(self, prompts: Any) -> Any:
        """The cache after each of K prompts.

        Args:
            prompts: float tensor (K, L, d).

        Returns:
            A nest of tensors, (K, …), of length L along their length axis.
        """
        real = self.task.backbone.token_embedding

        def token_embedding(ids: Any, reverse: bool = False) -> Any:
            # Nobody asks for logits at a prompt's positions.
            return ids if reverse else ops.cast(prompts, real.compute_dtype)

        def embeddings(ids: Any, start_index: Any = 0) -> Any:
            """Of a layer for tokens and positions together, as OPT's."""
            positions = self.task.backbone.embeddings.position_embedding
            tokens = token_embedding(ids)
            return tokens + positions(tokens, start_index=start_index)

        instead: dict[str, Any] = {"token_embedding": View(real, __call__=token_embedding)}
        if hasattr(getattr(self.task.backbone, "embeddings", None), "position_embedding"):
            instead["embeddings"] = embeddings
        ids = ops.zeros(ops.shape(prompts)[:2], "int32")
        return _build_cache(self._view(**instead), ids)

    def behind(self, token_ids: Any, padding_mask: Any, cache: Any, rows: Any, poison: Any) -> Any:
        """The logits of whole rows behind their prompts, for training: no cache is kept.

        Args:
            token_ids: int tensor (B, S).
            padding_mask: int tensor (B, S). Padding anywhere gets the logits that it has where the
                prompt is spliced in.
            cache: what `after` gave for K prompts.
            rows: int tensor (B,). Which of them each row has.
            poison: float tensor (B,), added to what enters the first layer: 0, or NaN for a row
                that should have no logits.

        Returns:
            Logits (B, S, V).
        """
        batch_size, more = ops.shape(token_ids)
        prompt_mask = ops.ones((batch_size, self.length), "int32")
        mask = ops.concatenate([prompt_mask, ops.cast(padding_mask, "int32")], axis=1)

        def grown(tensor: Any) -> Any:
            return _grown(ops.take(tensor, rows, axis=0), self._length_axis, more)

        def seen(layer: Any, is_first: bool) -> Any:
            mask_name = _mask_name(layer)
            assert mask_name is not None

            def call(x: Any, **given: Any) -> Any:
                """One layer, whose part of the cache is gathered and grown just before its use."""
                x = x + ops.cast(poison, x.dtype)[:, None, None] if is_first else x
                given = {
                    name: keras.tree.map_structure(grown, value)
                    if name.endswith("cache") and value is not None
                    else value
                    for name, value in given.items()
                }
                x, filled = layer(x, **{**given, mask_name: mask})
                return x, keras.tree.map_structure(self._nothing_of, filled)

            return View(layer, __call__=call)

        layers = [seen(x, i == 0) for i, x in enumerate(self.task.backbone.transformer_layers)]
        index = ops.convert_to_tensor(self.length, "int32")
        view = self._view(transformer_layers=layers)
        return view.call_with_cache(token_ids, cache, index)[0]

    def for_rows(self, cache: Any, rows: Any, more: int) -> Any:
        """Each row's own cache, with room for more tokens.

        Args:
            cache: what `after` gave for K prompts.
            rows: int tensor (B,). Which of them each row has.
            more: int. S, the tokens to come.

        Returns:
            A nest of tensors, (B, …), of length L + S along their length axis.
        """

        def grown(tensor: Any, axis: int) -> Any:
            return _grown(ops.take(tensor, rows, axis=0), axis, more)

        return keras.tree.map_structure(grown, cache, self.length_axes)

    def step(
        self, token_ids: Any, cache: Any, index: Any, with_logits: bool = True
    ) -> tuple[Any, Any, Any]:
        """Runs tokens behind those in the cache.

        Args:
            token_ids: int tensor (B, n).
            cache: what `for_rows` or an earlier step gave.
            index: int or int tensor (). How many of the user's tokens are before these.
            with_logits: bool. `False` where only the cache and the states are wanted: what stands
                for the logits then means nothing. Defaults to `True`.

        Returns:
            Logits (B, n, V), hidden states (B, n, d), and the cache with these tokens.
        """
        real = self.task.backbone.token_embedding

        def token_embedding(ids: Any, reverse: bool = False) -> Any:
            return ids if reverse else real(ids)

        view = self._view(token_embedding=View(real, __call__=token_embedding))
        task = self.task if with_logits else view
        index = ops.cast(index, "int32") + self.length
        logits, states, cache = task.call_with_cache(token_ids, cache, index)
        return logits, states, cache

    def _view(self, **instead: Any) -> View:
        """The task as if its backbone had other attributes."""
        return View(self.task, backbone=View(self.task.backbone, **instead))

    def _nothing_of(self, tensor: Any) -> Any:
        """A cache of length 0: tasks stack what their layers give, which costs a copy of it."""
        return tensor[(..., slice(0, 0), *[slice(None)] * (-self._length_axis - 1))]


def prefix_cache(task: Any, splice: Splice) -> PrefixCache | None:
    """The task's `PrefixCache`, or `None` where it has no right cache of keys and values alone.

    The layout is found by what the task allocates for two lengths: the axis that differs is that of
    the positions. States without one (linear attention's) are no cache that a prompt can be put
    into and taken out of here.

    Args:
        task: a `keras_hub.models.CausalLM`.
        splice: the model's `Splice`.
    """
    build, call = (getattr(type(task), n, None) for n in ("_build_cache", "call_with_cache"))
    if build is None or call is None or type(task.backbone).__name__ in _NOT_THE_MODEL:
        return None
    if splice.at:  # The start token is in front of the prompt, and rows may differ in it.
        return None
    layers = getattr(task.backbone, "transformer_layers", [])
    if not layers or not all(_mask_name(layer) for layer in layers):
        return None
    if getattr(task.backbone, "num_kv_shared_layers", 0):  # A layer's cache is another's as well.
        return None
    if list(inspect.signature(call).parameters)[1:4] != [
        "token_ids",
        "cache",
        "cache_update_index",
    ]:
        return None
    axes = keras.tree.map_structure(_differing_axis, _allocated(task, 2), _allocated(task, 3))
    if len(set(keras.tree.flatten(axes))) != 1 or None in keras.tree.flatten(axes):
        return None
    slice_update_gradient.register()
    return PrefixCache(task, splice, axes)


def _allocated(task: Any, length: int) -> Any:
    """The empty cache that the task makes for one row."""
    made: list[Any] = []

    def call_with_cache(token_ids: Any, cache: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(cache)
        return None, None, cache

    _build_cache(View(task, call_with_cache=call_with_cache), ops.zeros((1, length), "int32"))
    return made[0]


def _build_cache(view: Any, token_ids: Any) -> Any:
    """The task's `_build_cache` on text alone: what it takes for images and sounds is `None`."""
    build: Callable[..., Any] = view._build_cache
    names = list(inspect.signature(build).parameters)[1:]
    given = {name: None for name in names}
    if "padding_mask" in given:
        given["padding_mask"] = ops.ones_like(token_ids)
    return build(token_ids, **given)[1]


def _mask_name(layer: Any) -> str | None:
    """What a layer calls its padding mask."""
    names = inspect.signature(layer.call).parameters
    return next((name for name in names if name.endswith("padding_mask")), None)


def _differing_axis(short: Any, long: Any) -> int | None:
    """The one axis whose length differs, counted from the last, or `None`."""
    axes = [i for i, (a, b) in enumerate(zip(short.shape, long.shape, strict=True)) if a != b]
    return axes[0] - len(short.shape) if len(axes) == 1 else None


def _grown(tensor: Any, axis: int, more: Any) -> Any:
    """A tensor with `more` zeros behind it along an axis."""
    padding = [(0, 0)] * len(tensor.shape)
    padding[axis] = (0, more)
    return ops.pad(tensor, padding)
