"""A decoder's keys and values, kept from token to token, after an encoder that runs once.

keras-hub's encoder-decoders have a `call_decoder_with_cache` each. They take the same things under
two sets of names, and give the same things in the same order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

from keras_mpt._keras import hub_cache_allocator, hub_cache_builder
from keras_mpt.arrays import concrete
from keras_mpt.splicing.at_positions import at_positions
from keras_mpt.splicing.encoder_once import Encoded
from keras_mpt.splicing.insert import insert
from keras_mpt.splicing.splice import Splice
from keras_mpt.splicing.view import View
from keras_mpt.types import Task, Tensor

# What each argument of a `call_decoder_with_cache` is, by the names that keras-hub has for it.
_ARGUMENTS = {
    "decoder_token_ids": "ids",
    "decoder_padding_mask": "mask",
    "encoder_hidden_states": "encoder_states",
    "encoder_output": "encoder_states",
    "encoder_padding_mask": "encoder_mask",
    "self_attention_cache": "own",
    "cross_attention_cache": "cross",
    "cache": "both",
    "self_attention_cache_update_index": "index",
    "cache_update_index": "index",
    "cross_attention_cache_update_index": "cross_index",
}


class DecoderState(NamedTuple):
    """What is kept of the encoder and of the decoder's tokens so far.

    Attributes:
        encoded: what `EncoderOnce.encode` gave.
        own: the decoder's keys and values of its own tokens, (B, layers, 2, length, heads, dim).
        cross: its keys and values of the encoder's states.
    """

    encoded: Encoded
    own: Tensor
    cross: Tensor


class DecoderCache:
    """What a task's `call_decoder_with_cache` needs to go on token by token; see `decoder_cache`.

    Args:
        task: a `keras_hub.models.Seq2SeqLM`.
        splice: the model's `Splice`.
        names: list of strings. The arguments of the task's `call_decoder_with_cache`.
    """

    def __init__(self, task: Task, splice: Splice, names: list[str]) -> None:
        self.task, self.names = task, names
        self.embedding = splice.token_inputs[1].embedding
        # L where the decoder has a prompt of its own, after the encoder's.
        self.length = splice.num_virtual_tokens * (splice.num_transformer_submodules - 1)

    def after(
        self,
        token_ids: Tensor,
        encoded: Encoded,
        prompts: Tensor,
        room: int = 0,
        last: Tensor | None = None,
        look_up: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, DecoderState]:
        """Runs `[the decoder's prompt; tokens]`, or the tokens where the decoder has no prompt.

        Args:
            token_ids: int tensor (B, S).
            encoded: what `EncoderOnce.encode` gave, for the same rows.
            prompts: float tensor (B, M·L, d).
            room: int. How many more tokens the cache should have room for. Defaults to `0`.
            last: int tensor (B,). The one token in each row whose logits are wanted. Defaults to
                `None`: what stands for the logits then means nothing.
            look_up: function of ids (B, n) that gives their embeddings. Defaults to `None`: the
                backbone's own.

        Returns:
            Logits (B, 1, V), hidden states (B, S, d), and the cache.
        """
        ids = ops.cast(token_ids, "int32")
        longer = ops.pad(ids, [(0, 0), (self.length, room)])
        own, cross = _empty(self.task, encoded.mask, longer)
        cache = DecoderState(encoded, own, cross)
        made: list[Tensor] = []
        at = None if last is None else (self.length + ops.cast(last, "int32"))[:, None]
        prompt = prompts[:, self.length :] if self.length else None
        view = self._after_prompt(prompt, at, made, look_up)
        logits, states, cache = self._call(view, ids, cache, index=0, cross_index=0)
        if at is not None and not made:  # Of an output layer of its own.
            logits = at_positions(logits, at)
        return logits, states[:, self.length :], cache

    def step(
        self,
        token_ids: Tensor,
        cache: DecoderState,
        index: int | Tensor,
        look_up: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, DecoderState]:
        """Runs tokens after those in the cache.

        Args:
            token_ids: int tensor (B, n).
            cache: what `after` or an earlier step gave.
            index: int or int tensor (). How many of the user's tokens are before these.
            look_up: as in `after`. Defaults to `None`.

        Returns:
            Logits (B, n, V), hidden states (B, n, d), and the cache with these tokens.
        """
        known = concrete(index)
        # Keras on PyTorch writes at a tensor's place entry by entry.
        place = ops.cast(index, "int32") if known is None else int(known)
        task = self.task if look_up is None else self._embedding_by(look_up, self.embedding)
        return self._call(task, token_ids, cache, place + self.length, cross_index=None)

    def _call(
        self,
        task: Task,
        ids: Tensor,
        cache: DecoderState,
        index: int | Tensor,
        cross_index: int | None,
    ) -> tuple[Tensor, Tensor, DecoderState]:
        # Every slot may be looked at: the causal mask hides those that are not written yet.
        rows, slots = ops.shape(cache.own)[0], ops.shape(cache.own)[3]
        given = {
            "encoder_states": cache.encoded.states,
            "encoder_mask": cache.encoded.mask,
            "own": cache.own,
            "cross": cache.cross,
            "ids": ids,
            "mask": ops.ones((rows, slots), "bool"),
            "both": (cache.own, cache.cross),
            "index": index,
            "cross_index": cross_index,
        }
        made = task.call_decoder_with_cache(**{n: given[_ARGUMENTS[n]] for n in self.names})
        logits, states, *caches = made
        own, cross = keras.tree.flatten(caches)
        return logits, states, cache._replace(own=own, cross=cross)

    def _after_prompt(
        self,
        prompt: Tensor | None,
        at: Tensor | None,
        made: list[Tensor],
        look_up: Callable[[Tensor], Tensor] | None,
    ) -> View:
        """The task, seen with a prompt in front of the decoder's token embeddings.

        Args:
            prompt: float tensor (B, L, d), or `None`.
            at: int tensor (B, 1). Where logits are wanted, or `None` for nowhere.
            made: list that gets the states that logits are asked for of.
            look_up: as in `after`.
        """
        real = self.embedding

        def embed(ids: Tensor) -> Tensor:
            tokens = (look_up or real)(ids)
            return tokens if prompt is None else insert(tokens, ops.cast(prompt, tokens.dtype), 0)

        def to_logits(states: Tensor, reverse: bool) -> Tensor:
            made.append(states)
            return states if at is None else real(at_positions(states, at), reverse=reverse)

        return self._embedding_by(embed, to_logits)

    def _embedding_by(
        self, embed: Callable[[Tensor], Tensor], to_logits: Callable[..., Tensor]
    ) -> View:
        """The task, seen with another way from ids to embeddings, and from states to logits."""
        backbone = self.task.backbone

        def embedding(ids: Tensor, reverse: bool = False) -> Tensor:
            return to_logits(ids, reverse=True) if reverse else embed(ids)

        # keras-hub's property `token_embedding` is kept as `_token_embedding`.
        names = {n.removeprefix("_") for n, v in vars(backbone).items() if v is self.embedding}
        return View(self.task, backbone=View(backbone, **dict.fromkeys(names, embedding)))


def decoder_cache(task: Task, splice: Splice) -> DecoderCache | None:
    """The task's `DecoderCache`, or `None` where it has no such path, or its prompt does not fit.

    Args:
        task: a `keras_hub.models.Seq2SeqLM`.
        splice: the model's `Splice`.
    """
    call = getattr(type(task), "call_decoder_with_cache", None)
    if call is None or not (hub_cache_allocator(task) or hub_cache_builder(task)):
        return None
    names = list(inspect.signature(call).parameters)[1:]
    # A prompt after the start token would stand between tokens that the cache counts as one row.
    after_start = splice.at > 0 and splice.num_transformer_submodules > 1
    if after_start or not set(names) <= set(_ARGUMENTS):
        return None
    return DecoderCache(task, splice, names)


def _empty(task: Task, encoder_ids: Tensor, decoder_ids: Tensor) -> tuple[Tensor, Tensor]:
    """What the task allocates: for the decoder's own tokens, and for the encoder's."""
    allocate = hub_cache_allocator(task)
    if allocate is not None:
        return tuple(allocate(encoder_ids, decoder_ids))
    view = View(
        task,
        call_encoder=lambda *args, **kwargs: (None, None),
        call_decoder_with_cache=lambda *args, cache, **kwargs: (None, None, cache),
    )
    build = hub_cache_builder(view)
    assert build is not None
    return tuple(build(encoder_ids, None, decoder_ids, None)[1])
