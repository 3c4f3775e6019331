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

from keras_mpt._keras import hub_cache_builder
from keras_mpt.arrays import concrete
from keras_mpt.families import cache_takes_left_padding, has_right_cache
from keras_mpt.splicing import slice_update_gradient
from keras_mpt.splicing.at_positions import at_positions
from keras_mpt.splicing.splice import Splice
from keras_mpt.splicing.view import View
from keras_mpt.types import Task, Tensor, Tensors

Cache = list[Tensors]
"""What each layer keeps: a tensor of keys and values, or a pair of them."""


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
        self.has_pairs = has_pairs
        # Whether `whole_rows` is right whatever the padding.
        self.takes_padding = cache_takes_left_padding(task.backbone)
        # Whether layers add a loss while training, a mean over positions: that of experts' balance
        # in Mixtral and its like. Prompts that run once would count once in it.
        self.adds_losses = any(
            value
            for name, value in vars(task.backbone).items()
            if name.startswith("router_aux_loss_coef")
        )

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
        layers = self._layers(keep=filled)
        ids = ops.zeros(ops.shape(prompts)[:2], "int32")
        _build_cache(self._view(**instead, transformer_layers=layers), ids)
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

        Returns:
            Logits (B, S, V), and a list of hidden states (B, S, d): of the last layer, those that
            the logits are made of.
        """
        batch_size, more = ops.shape(token_ids)
        prompt_mask = ops.ones((batch_size, self.length), "int32")
        mask = ops.concatenate([prompt_mask, ops.cast(padding_mask, "int32")], axis=1)

        def gathered(part: Tensors) -> Tensors:
            """A layer's part, gathered and grown just before its use."""
            return self._of_rows(part, rows, more)

        # Without gradients, states that nobody asks for need not be kept from layer to layer.
        states: list[Tensor] | None = [] if layers else None
        seen = self._layers(
            cache, gathered, self.length, states=states, mask=mask, poison=poison, remat=remat
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

    def for_rows(self, cache: Cache, rows: Tensor, more: int) -> Cache:
        """Each row's own cache, with room for more tokens.

        Args:
            cache: what `after` gave for K prompts.
            rows: int tensor (B,). Which of them each row has.
            more: int. S, the tokens to come.

        Returns:
            A list of nests of tensors, (B, …), of length L + S along their length axis.
        """
        return [self._apart(self._of_rows(part, rows, more)) for part in cache]

    def step(
        self,
        token_ids: Tensor,
        cache: Cache,
        index: int | Tensor,
        with_logits: bool = True,
        last: Tensor | None = None,
        look_up: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Cache]:
        """Runs tokens that come after those in the cache.

        Args:
            token_ids: int tensor (B, n).
            cache: what `for_rows` or an earlier step gave.
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
        layers = self._layers(cache, self._together, place, keep=filled)
        instead: dict[str, Any] = {"transformer_layers": layers}
        if look_up is not None:
            instead |= self._embedding_by(token_embedding)
        elif not with_logits:
            instead["token_embedding"] = View(real, __call__=token_embedding)
        index = ops.cast(index, "int32") + self.length
        logits, states, _ = self._view(**instead).call_with_cache(token_ids, _Unused(), index)
        if last is not None and not made:  # Of an output layer of its own.
            logits = at_positions(logits, last[:, None])
        return logits, states, [self._apart(part) for part in filled]

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

    def _layers(
        self,
        cache: Cache | None = None,
        of_part: Callable[[Tensors], Tensors] | None = None,
        place: int | None = None,
        keep: list[Tensors] | None = None,
        states: list[Tensor] | None = None,
        mask: Tensor | None = None,
        poison: Tensor | None = None,
        remat: float = 0.0,
    ) -> list[View]:
        """The backbone's layers, seen with other arguments.

        Args:
            cache: each layer's part of it; `None` leaves it what the task gives. Defaults to
                `None`.
            of_part: what a layer gets of its part. Defaults to `None`.
            place: int. Where the new tokens' keys and values come, where that is known. Keras on
                PyTorch writes at a tensor's place entry by entry. Defaults to `None`.
            keep: list that gets each layer's part, with the new tokens. Defaults to `None`.
            states: list that gets what each layer gives. Defaults to `None`.
            mask: int tensor (B, L + S), the padding mask that the layers get. Defaults to `None`.
            poison: float tensor (B,), added to what enters the first layer. Defaults to `None`.
            remat: float. The share of the layers that run once more on the way back. The last ones
                keep what is within them, which is gone before the first ones run again. Defaults
                to 0.
        """
        layers = self.task.backbone.transformer_layers
        again = round(remat * len(layers))

        def seen(i: int, layer: keras.layers.Layer) -> View:
            def call(x: Tensor, **given: Any) -> tuple[Tensor, Tensors]:
                if i == 0 and poison is not None:
                    x = x + ops.cast(poison, x.dtype)[:, None, None]
                if place is not None:
                    given |= {name: place for name in _place_names(layer) if name in given}
                if mask is not None:
                    given[str(_mask_name(layer))] = mask
                part = () if cache is None else cache[i]

                def run(x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensors]:
                    # All that has a gradient is handed on, where TensorFlow finds it.
                    own = {}
                    if cache is not None and of_part is not None:
                        found = of_part(keras.tree.pack_sequence_as(part, tensors))
                        own = {name: found for name in given if name.endswith("cache")}
                    x, filled = layer(x, **{**given, **own})
                    if keep is not None:
                        keep.append(filled)
                    return x, keras.tree.map_structure(self._nothing_of, filled)

                x, nothing = (keras.remat(run) if i < again else run)(x, *keras.tree.flatten(part))
                if states is not None:
                    states.append(x)
                return x, nothing

            return View(layer, __call__=call)

        return [seen(i, layer) for i, layer in enumerate(layers)]

    def _apart(self, part: Tensors) -> Tensors:
        """A layer's keys and values as two tensors, which a compiler can update in place.

        A loop that carries them as one tensor copies it for each new token.
        """
        is_one = ops.is_tensor(part) and part.shape[1] == 2
        return tuple(ops.unstack(part, axis=1)) if is_one else part

    def _together(self, part: Tensors) -> Tensors:
        """What `_apart` was given: the compiler sees that nothing needs to be copied for it."""
        is_pair = isinstance(part, (tuple, list)) and not self.has_pairs
        return ops.stack(part, axis=1) if is_pair else part

    def _nothing_of(self, tensor: Tensor) -> Tensor:
        """A cache of length 0: tasks stack what their layers give, which costs a copy of it."""
        return tensor[(..., slice(0, 0), *[slice(None)] * (-self.length_axis - 1))]

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
    lengths = (keras.tree.flatten(_allocated(task, n)) for n in (2, 3))
    axes = {_differing_axis(short, long) for short, long in zip(*lengths, strict=True)}
    (axis,) = axes if len(axes) == 1 else (None,)
    if axis is None:
        return None
    slice_update_gradient.register()
    return PrefixCache(task, splice, axis, has_pairs=not ops.is_tensor(_allocated(task, 2)))


def _allocated(task: Task, length: int) -> Tensors:
    """The empty cache that the task makes for one row."""
    made: list[Tensors] = []

    def call_with_cache(token_ids: Tensor, cache: Tensors, *args: Any, **kwargs: Any) -> Any:
        made.append(cache)
        return None, None, cache

    _build_cache(View(task, call_with_cache=call_with_cache), ops.zeros((1, length), "int32"))
    return made[0]


def _build_cache(view: View, token_ids: Tensor) -> Cache:
    """The task's `_build_cache` on text alone: what it takes for images and sounds is `None`."""
    build = hub_cache_builder(view)
    assert build is not None
    names = list(inspect.signature(build).parameters)[1:]
    given = {name: None for name in names}
    if "padding_mask" in given:
        given["padding_mask"] = ops.ones_like(token_ids)
    return build(token_ids, **given)[1]


def _mask_name(layer: keras.layers.Layer) -> str | None:
    """What a layer calls its padding mask."""
    names = inspect.signature(layer.call).parameters
    return next((name for name in names if name.endswith("padding_mask")), None)


def _place_names(layer: keras.layers.Layer) -> list[str]:
    """What a layer calls the place of new tokens, where it names it; what it only hands on, Keras
    wants to be a tensor beside tensors.
    """
    names = inspect.signature(layer.call).parameters
    return [name for name in names if name.endswith("cache_update_index")]


def _differing_axis(short: Tensor, long: Tensor) -> int | None:
    """The one axis whose length differs, counted from the last, or `None`."""
    axes = [i for i, (a, b) in enumerate(zip(short.shape, long.shape, strict=True)) if a != b]
    return axes[0] - len(short.shape) if len(axes) == 1 else None
