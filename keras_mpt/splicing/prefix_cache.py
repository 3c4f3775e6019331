"""A causal model's keys and values after a prompt: computed once per prompt, not once per row.

In a causal model nothing before a token depends on it, so the prompt's keys and values are the same
in every row that has the prompt. keras-hub's `call_with_cache` continues from there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mpt.splicing.splice import Splice
from keras_mpt.splicing.view import View

# Where keras-hub 0.32's own cached path does not compute what its model does. A test compares every
# other family's with the splice.
_NOT_THE_MODEL = {
    "GPTNeoXBackbone": "each cached step turns its query as if it stood at the first position",
}


class PrefixCache:
    """What a task's `call_with_cache` needs to go on behind a prompt; made by `prefix_cache`.

    Args:
        task: a `keras_hub.models.CausalLM`.
        splice: the model's `Splice`.
        length_axes: for each tensor of the task's cache, its axis of positions.
    """

    def __init__(self, task: Any, splice: Splice, length_axes: Any) -> None:
        self.task, self.length = task, splice.num_virtual_tokens
        self.length_axes = length_axes

    def after(self, prompts: Any) -> Any:
        """The cache after each of K prompts.

        Args:
            prompts: float tensor (K, L, d).

        Returns:
            A nest of tensors, (K, …), of length L along their length axis.
        """
        real = self.task.backbone.token_embedding

        def token_embedding(ids: Any, reverse: bool = False) -> Any:
            return real(ids, reverse=True) if reverse else ops.cast(prompts, real.compute_dtype)

        def embeddings(ids: Any, start_index: Any = 0) -> Any:
            """Of a layer for tokens and positions together, as OPT's."""
            positions = self.task.backbone.embeddings.position_embedding
            tokens = token_embedding(ids)
            return tokens + positions(tokens, start_index=start_index)

        instead: dict[str, Any] = {"token_embedding": token_embedding}
        if hasattr(getattr(self.task.backbone, "embeddings", None), "position_embedding"):
            instead["embeddings"] = embeddings
        view = View(self.task, backbone=View(self.task.backbone, **instead))
        ids = ops.zeros(ops.shape(prompts)[:2], "int32")
        return _build_cache(view, ids)

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
            padding = [(0, 0)] * len(tensor.shape)
            padding[axis] = (0, more)
            return ops.pad(ops.take(tensor, rows, axis=0), padding)

        return keras.tree.map_structure(grown, cache, self.length_axes)

    def step(self, token_ids: Any, cache: Any, index: Any) -> tuple[Any, Any, Any]:
        """Runs tokens behind those in the cache.

        Args:
            token_ids: int tensor (B, n).
            cache: what `for_rows` or an earlier step gave.
            index: int or int tensor (). How many of the user's tokens are before these.

        Returns:
            Logits (B, n, V), hidden states (B, n, d), and the cache with these tokens.
        """
        index = ops.cast(index, "int32") + self.length
        logits, states, cache = self.task.call_with_cache(token_ids, cache, index)
        return logits, states, cache


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
    if list(inspect.signature(call).parameters)[1:4] != [
        "token_ids",
        "cache",
        "cache_update_index",
    ]:
        return None
    axes = keras.tree.map_structure(_differing_axis, _allocated(task, 2), _allocated(task, 3))
    return None if -1 in keras.tree.flatten(axes) else PrefixCache(task, splice, axes)


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


def _differing_axis(short: Any, long: Any) -> int:
    """The one axis whose length differs, or -1."""
    axes = [i for i, (a, b) in enumerate(zip(short.shape, long.shape, strict=True)) if a != b]
    return axes[0] if len(axes) == 1 else -1
