"""A causal model's keys and values after a prompt: computed once per prompt, not once per row.

In a causal model nothing before a token depends on it, so the prompt's keys and values are the same
in every row that has the prompt. keras-hub's `call_with_cache` continues from there, in generation
and in training alike.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mpt._keras import hub_cache_builder
from keras_mpt.arrays import concrete
from keras_mpt.families import adds_losses, cache_takes_left_padding, has_right_cache
from keras_mpt.splicing import slice_update_gradient
from keras_mpt.splicing.apart import saves_time
from keras_mpt.splicing.at_positions import at_positions
from keras_mpt.splicing.cache_layout import (
    Cache,
    allocated,
    build_cache,
    differing_axis,
    empty_like,
    handed_to_layers,
    mask_name,
)
from keras_mpt.splicing.joined_attention import Prefix, as_prefix
from keras_mpt.splicing.layer_views import layer_views
from keras_mpt.splicing.row_blocks import RowBlocks, row_blocks
from keras_mpt.splicing.shared_cache import SharedCache
from keras_mpt.splicing.splice import Splice
from keras_mpt.splicing.split_layers import SplitLayer, look_back, split_layers
from keras_mpt.splicing.view import View
from keras_mpt.types import Task, Tensor, Tensors


class PrefixCache:
    """What a task's `call_with_cache` needs to go on after a prompt; made by `prefix_cache`.

    A cache is here a list with what each layer keeps: a tensor of keys and values, or a pair of
    them. keras-hub's tasks make one tensor of all, and a copy of it for every new token.

    Args:
        task: a `keras_hub.models.CausalLM`.
        splice: the model's `Splice`.
        length_axis: int. The axis of positions in what a layer keeps, counted from the last.
        has_pairs: bool. Whether a layer keeps a pair of keys and values, not one tensor of both.
    """

    def __init__(self, task: Task, splice: Splice, length_axis: int, has_pairs: bool) -> None:
        self.task, self.length, self.length_axis = task, splice.num_virtual_tokens, length_axis
        self.has_pairs, self.layers = has_pairs, task.backbone.transformer_layers
        # Whether `whole_rows` is right whatever the padding.
        self.takes_padding = cache_takes_left_padding(task.backbone)
        # Whether layers add a loss while training: prompts that run once would count once in it.
        self.adds_losses = adds_losses(task.backbone)

    @functools.cached_property
    def splits(self) -> list[SplitLayer]:
        """The layers as they attend to prompt and text apart; empty where one of them cannot.

        To be asked for first where numbers can be seen, and not in what is compiled.
        """
        if self.length_axis != -3:
            return []
        try:
            return split_layers(self.layers, *handed_to_layers(self.task)) or []
        except Exception:  # Blocks that nobody has seen fail in ways of their own: they get copies.
            return []

    def can_attend_apart(self, more: int | None, training: bool | None = False) -> bool:
        """Whether rows may attend to their prompt where all have it.

        Args:
            more: int. How many tokens come after it, or `None` where that is not known.
            training: bool. Whether numbers may be dropped at random. Defaults to `False`.
        """
        if not self.splits or (training and any(split.drops_out for split in self.splits)):
            return False
        return look_back(self.splits, None if more is None else self.length + more)

    def blocks(
        self, rows: Tensor, number: int | None, more: int | None, training: bool | None
    ) -> RowBlocks | None:
        """Rows by their prompts, where these are better read in common, else `None`.

        Args:
            rows: int tensor (B,). Which of the prompts each row has.
            number: int. K, how many prompts there are, or `None` where that is not known.
            more: int. S, the tokens that come after them, or `None`.
            training: bool. Whether gradients are wanted.
        """
        if number is None or not saves_time(self.length, rows.shape[0], number):
            return None
        if not self.can_attend_apart(more, training):
            return None
        return row_blocks(rows, number, more, concrete(rows, "rows"))

    def after(self, prompts: Tensor) -> Cache:
        """The cache after each of K prompts.

        Args:
            prompts: float tensor (K, L, d).

        Returns:
            A list of nests of tensors, (K, …), of length L along their length axis.
        """
        dtype = self.task.backbone.token_embedding.compute_dtype

        def token_embedding(ids: Tensor, reverse: bool = False) -> Tensor:
            # Nobody asks for logits at a prompt's positions.
            return ids if reverse else ops.cast(prompts, dtype)

        instead = self._embedding_by(token_embedding)
        filled: Cache = []
        layers = layer_views(self.layers, self.length_axis, keep=filled)
        ids = ops.zeros(ops.shape(prompts)[:2], "int32")
        build_cache(self._view(**instead, transformer_layers=layers), ids)
        return filled

    def whole_rows(
        self,
        token_ids: Tensor,
        padding_mask: Tensor,
        cache: Cache,
        rows: Tensor,
        poison: Tensor,
        layers: tuple[int, ...] = (),
        positions: Tensor | None = None,
        remat: float = 0.0,
        blocks: RowBlocks | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Whole rows after their prompts, for training: no cache is kept.

        Args:
            token_ids: int tensor (B, S).
            padding_mask: int tensor (B, S). Padding anywhere gets the logits that it has where the
                prompt is spliced in.
            cache: what `after` gave for K prompts.
            rows: int tensor (B,). Which of them each row has.
            poison: float tensor (B,), added to what enters the first layer: 0, or NaN for a row
                that should have no logits.
            layers: tuple of ints. Which layers' hidden states to give. Defaults to `()`.
            positions: int tensor (B, K). Where logits are wanted, (B, K, V); `None` for everywhere.
                Defaults to `None`.
            remat: float. The share of the layers, the first ones, that run once more on the way
                back: what is within them is not kept till then. Defaults to 0.
            blocks: the rows by their prompts, to which they then attend where these are. Defaults
                to `None`: each row gets a copy of its prompt.

        Returns:
            Logits (B, S, V), and a list of hidden states (B, S, d): of the last layer, those that
            the logits are made of.
        """
        batch_size, more = ops.shape(token_ids)
        slots = self.length if blocks is None else 1
        prompt_mask = ops.ones((batch_size, slots), "int32")
        mask = ops.concatenate([prompt_mask, ops.cast(padding_mask, "int32")], axis=1)

        def of_part(i: int, part: Tensors) -> tuple[keras.layers.Layer, Tensors]:
            """A layer with its part, gathered and grown just before its use; or apart from it."""
            if blocks is None:
                return self.layers[i], self._of_rows(part, rows, more)
            own = keras.tree.map_structure(lambda t: empty_like(t, batch_size, 1 + more), part)
            return self._after(i, as_prefix(self.apart(part), blocks), blocks), own

        # Without gradients, states that nobody asks for need not be kept from layer to layer.
        states: list[Tensor] | None = [] if layers else None
        seen = layer_views(
            self.layers,
            self.length_axis,
            cache,
            of_part,
            self.length,
            states=states,
            mask=mask,
            poison=poison,
            remat=remat,
            not_counted=self.length - slots,
        )
        index = ops.convert_to_tensor(self.length, "int32")
        real = self.task.backbone.token_embedding
        chosen: list[bool] = []

        def token_embedding(ids: Tensor, reverse: bool = False) -> Tensor:
            if not reverse:
                return real(ids)
            chosen.append(True)
            return real(at_positions(ids, positions), reverse=True)

        instead: dict[str, Any] = {"transformer_layers": seen}
        if positions is not None:
            instead["token_embedding"] = View(real, __call__=token_embedding)
        view = self._view(**instead)
        logits, last, _ = view.call_with_cache(token_ids, _Unused(), index)
        if positions is not None and not chosen:  # Of an output layer of its own.
            logits = at_positions(logits, positions)
        given = [] if states is None else [*states[:-1], last]
        return logits, [given[i] for i in layers]

    def for_rows_apart(self, cache: Cache, rows: Tensor, more: int) -> SharedCache:
        """Each row's own cache for more tokens, beside what all rows read.

        Args:
            cache: what `after` gave for K prompts.
            rows: int tensor (B,). Which of them each row has.
            more: int. S, the tokens to come.
        """
        blocks = row_blocks(rows, keras.tree.flatten(cache[0])[0].shape[0])
        parts = [self.apart(part) for part in cache]
        of_rows = ops.shape(rows)[0]
        own = [tuple(empty_like(t, of_rows, 1 + more) for t in part) for part in parts]
        return SharedCache(own, [as_prefix(part, blocks) for part in parts], blocks)

    def for_rows(self, cache: Cache, rows: Tensor, more: int) -> Cache:
        """Each row's own cache, with room for more tokens.

        Args:
            cache: what `after` gave for K prompts.
            rows: int tensor (B,). Which of them each row has.
            more: int. S, the tokens to come.

        Returns:
            A list of nests of tensors, (B, …), of length L + S along their length axis.
        """
        return [self.apart(self._of_rows(part, rows, more)) for part in cache]

    def step(
        self,
        token_ids: Tensor,
        cache: Cache | SharedCache,
        index: int | Tensor,
        with_logits: bool = True,
        last: Tensor | None = None,
        look_up: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Cache | SharedCache]:
        """Runs tokens that come after those in the cache.

        Args:
            token_ids: int tensor (B, n).
            cache: what `for_rows`, `for_rows_apart` or an earlier step gave.
            index: int or int tensor (). How many of the user's tokens are before these.
            with_logits: bool. `False` where only the cache and the states are wanted: what stands
                for the logits then means nothing. Defaults to `True`.
            last: int tensor (B,). With `with_logits=False`: the one of these tokens in each row
                whose logits are wanted all the same, (B, 1, V). Defaults to `None`.
            look_up: function of ids (B, n) that gives their embeddings without positions. Defaults
                to `None`: the backbone's own.

        Returns:
            Logits (B, n, V), hidden states (B, n, d), and the cache with these tokens.
        """
        real = self.task.backbone.token_embedding
        made: list[Tensor] = []

        def token_embedding(ids: Tensor, reverse: bool = False) -> Tensor:
            if not reverse:
                return (look_up or real)(ids)
            if with_logits:
                return real(ids, reverse=True)
            made.append(ids)
            return ids if last is None else real(at_positions(ids, last[:, None]), reverse=True)

        filled: Cache = []
        known = concrete(index)
        place = None if known is None else self.length + int(known)
        shared = cache if isinstance(cache, SharedCache) else None
        parts = cache.own if isinstance(cache, SharedCache) else cache

        def of_part(i: int, part: Tensors) -> tuple[keras.layers.Layer, Tensors]:
            layer = self.layers[i]
            if shared is not None:
                layer = self._after(i, shared.prefixes[i], shared.blocks)
            return layer, self._together(part)

        layers = layer_views(
            self.layers,
            self.length_axis,
            parts,
            of_part,
            place,
            keep=filled,
            not_counted=0 if shared is None else self.length - 1,
        )
        instead: dict[str, Any] = {"transformer_layers": layers}
        if look_up is not None:
            instead |= self._embedding_by(token_embedding)
        elif not with_logits:
            instead["token_embedding"] = View(real, __call__=token_embedding)
        index = ops.cast(index, "int32") + self.length
        logits, states, _ = self._view(**instead).call_with_cache(token_ids, _Unused(), index)
        if last is not None and not made:  # Of an output layer of its own.
            logits = at_positions(logits, last[:, None])
        own = [self.apart(part) for part in filled]
        return logits, states, own if shared is None else shared._replace(own=own)

    def _after(self, i: int, prefix: Prefix, blocks: RowBlocks) -> keras.layers.Layer:
        """A layer that attends to prompts beside its cache."""
        return self.splits[i].after(prefix, blocks, self.length)

    def _embedding_by(self, token_embedding: Callable[..., Tensor]) -> dict[str, Any]:
        """The attributes of a backbone that embeds tokens otherwise."""
        backbone = self.task.backbone

        def embeddings(ids: Tensor, start_index: int | Tensor = 0) -> Tensor:
            """Of a layer for tokens and positions together, as OPT's."""
            tokens = token_embedding(ids)
            return tokens + backbone.embeddings.position_embedding(tokens, start_index=start_index)

        view = View(backbone.token_embedding, __call__=token_embedding)
        instead: dict[str, Any] = {"token_embedding": view}
        if hasattr(getattr(backbone, "embeddings", None), "position_embedding"):
            instead["embeddings"] = embeddings
        return instead

    def _view(self, **instead: Any) -> View:
        """The task as if its backbone had other attributes."""
        return View(self.task, backbone=View(self.task.backbone, **instead))

    def apart(self, part: Tensors) -> Tensors:
        """A layer's keys and values as two tensors, which a compiler can update in place.

        A loop that carries them as one tensor copies it for each new token.
        """
        is_one = ops.is_tensor(part) and part.shape[1] == 2
        return tuple(ops.unstack(part, axis=1)) if is_one else part

    def _together(self, part: Tensors) -> Tensors:
        """What `apart` was given: the compiler sees that nothing needs to be copied for it."""
        is_pair = isinstance(part, (tuple, list)) and not self.has_pairs
        return ops.stack(part, axis=1) if is_pair else part

    def _of_rows(self, part: Tensors, rows: Tensor, more: int | Tensor) -> Tensors:
        """What a layer keeps of each row's prompt, with `more` zeros after it."""

        def of_rows(tensor: Tensor) -> Tensor:
            padding = [(0, 0)] * len(tensor.shape)
            padding[self.length_axis] = (0, more)
            return ops.pad(ops.take(tensor, rows, axis=0), padding)

        return keras.tree.map_structure(of_rows, part)


class _Unused:
    """In the place of a whole cache: tasks take a layer's part of it, whatever that is."""

    def __getitem__(self, key: object) -> None:
        return None


def prefix_cache(task: Task, splice: Splice) -> PrefixCache | None:
    """The task's `PrefixCache`, or `None` where it has no right cache of keys and values alone.

    The layout is found by what the task allocates for two lengths: the axis that differs is that of
    the positions. States without one (linear attention's) are no cache that a prompt can be put
    into and taken out of here.

    Args:
        task: a `keras_hub.models.CausalLM`.
        splice: the model's `Splice`.
    """
    call = getattr(type(task), "call_with_cache", None)
    if hub_cache_builder(task) is None or call is None or not has_right_cache(task.backbone):
        return None
    if splice.at:  # The start token is in front of the prompt, and rows may differ in it.
        return None
    layers = getattr(task.backbone, "transformer_layers", [])
    if not layers or not all(mask_name(layer) for layer in layers):
        return None
    if getattr(task.backbone, "num_kv_shared_layers", 0):  # A layer's cache is another's as well.
        return None
    if list(inspect.signature(call).parameters)[1:4] != [
        "token_ids",
        "cache",
        "cache_update_index",
    ]:
        return None
    lengths = (keras.tree.flatten(allocated(task, n)) for n in (2, 3))
    axes = {differing_axis(short, long) for short, long in zip(*lengths, strict=True)}
    (axis,) = axes if len(axes) == 1 else (None,)
    if axis is None:
        return None
    slice_update_gradient.register()
    return PrefixCache(task, splice, axis, has_pairs=not ops.is_tensor(allocated(task, 2)))
