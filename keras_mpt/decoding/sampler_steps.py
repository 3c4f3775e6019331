"""How samplers' loops run on PyTorch: by steps that are recorded and replayed."""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
from keras import ops

from keras_mpt.decoding.decoder import Decoder, KeepsKeys
from keras_mpt.decoding.replayed_steps import ReplayedSteps, Step
from keras_mpt.decoding.state import Context
from keras_mpt.types import Sampler, Tensor, Tensors


class SamplerSteps:
    """Steps from one token to the next.

    Where keras-hub's sampler draws nothing at random, a step is all from the text so far to the
    text with one more token. Else it is what gives the logits, and the sampler runs through Keras.

    Args:
        kept: the steps that were recorded.
        owner: what gives the logits, as a key.
    """

    def __init__(self, kept: ReplayedSteps, owner: Hashable) -> None:
        self.kept, self.owner = kept, owner

    def read(
        self, decoder: Decoder, text_ids: Tensor, context: Context, room: int, last: Tensor | None
    ) -> tuple[Tensor | None, Tensors]:
        """Reads each row's text.

        Args:
            decoder: what reads it.
            text_ids: int tensor (B, S).
            context: what stands before it.
            room: int. How many tokens may come after it.
            last: int tensor (B,). The token of each row whose logits are wanted, or `None`.

        Returns:
            The logits (B, V) after that token, or `None`; and the cache to go on from.
        """
        if not isinstance(decoder, KeepsKeys) or not decoder.reading_is_recorded:
            return None, decoder.read(text_ids, context, room)[1]
        of_cache: list[Tensors] = []

        def step(place: int, given: Sequence[Tensor]) -> list[Tensor]:
            ids, *parts = given
            at = None if last is None else parts.pop(0)
            before = keras.tree.pack_sequence_as(context, parts)
            logits, _, cache = decoder.run_text(ids, before, room, at)
            of_cache[:] = [keras.tree.map_structure(lambda _: 0, cache)]
            return [
                *([] if logits is None or at is None else [logits[:, 0]]),
                *keras.tree.flatten(cache),
            ]

        given = [text_ids, *([] if last is None else [last]), *_tensors(context)]
        key = (self.owner, "read", room, last is None)
        found = self.kept.of(key, given, is_placed=False)
        made = list(found.in_loop(step, may_write=False)(0, given))
        found.note = of_cache[0] if of_cache else found.note
        logits = None if last is None else made.pop(0)
        return logits, keras.tree.pack_sequence_as(found.note, made)

    def next(self, sampler: Sampler, next_logits: Callable[..., Any]) -> Callable[..., Any]:
        """A function that gives logits, as a sampler calls it.

        Args:
            sampler: a keras-hub sampler.
            next_logits: function of token ids (B, S), a cache and a position.
        """
        if is_plain(sampler):
            return next_logits
        runs: dict[int, Step] = {}

        def replayed(token_ids: Tensor, cache: Tensors, index: Tensor) -> Any:
            def step(place: int, given: Sequence[Tensor]) -> list[Tensor]:
                ids, *parts = given
                made = next_logits(ids, keras.tree.pack_sequence_as(cache, parts), place)
                return [*made[:2], *keras.tree.flatten(made[2])]

            given = [token_ids, *_tensors(cache)]
            found = self.kept.of((self.owner, "next"), given)
            if id(found) not in runs:
                # A sampler of the user's may look at a cache again.
                runs[id(found)] = found.in_loop(step, may_write=is_keras_hub_s(sampler))
            logits, states, *parts = runs[id(found)](int(index), given)
            return logits, states, keras.tree.pack_sequence_as(cache, parts)

        return replayed

    def loop(
        self,
        sampler: Sampler,
        next_logits: Callable[..., Any],
        first: Callable[..., Any] | None,
    ) -> Callable[..., Any]:
        """A function that runs a sampler's loop, as `Sampler.run_loop` does.

        Args:
            sampler: a keras-hub sampler.
            next_logits: as in `next`.
            first: the same for the first token, where its logits are known; or `None`.
        """
        if not is_plain(sampler):
            as_it_is: Callable[..., Any] = sampler.run_loop
            return as_it_is

        def run_loop(
            cond: Callable[..., Any],
            body: Callable[..., Any],
            model: object,
            loop_vars: Any,
            maximum_iterations: Any,
        ) -> Any:
            nonlocal first
            prompt, cache, index, mask = loop_vars

            def step_by(logits_of: Callable[..., Any]) -> Step:
                def step(place: int, given: Sequence[Tensor]) -> list[Tensor]:
                    prompt, mask, *parts = given
                    before = keras.tree.pack_sequence_as(cache, parts)
                    logits, _, made = logits_of(prompt, before, place)
                    token = sampler.get_next_token(sampler.compute_probabilities(logits))
                    token = ops.cast(token, prompt.dtype)
                    token = ops.where(mask[:, place], prompt[:, place], token)
                    prompt = ops.slice_update(prompt, (0, place), token[:, None])
                    return [prompt, mask, *keras.tree.flatten(made)]

                return step

            given = [prompt, mask, *_tensors(cache)]
            key = (self.owner, type(sampler), repr(sorted(vars(sampler).items())))
            run = self.kept.of(key, given).in_loop(step_by(next_logits), gives_back=True)
            place = int(index)
            end = place + int(maximum_iterations)
            while place < end and cond(given[0], cache, index, given[1]):
                given = list(run(place, given) if first is None else step_by(first)(place, given))
                first, place = None, place + 1
            prompt, mask, *parts = given
            return prompt, keras.tree.pack_sequence_as(cache, parts), place, mask

        return run_loop


def is_keras_hub_s(sampler: Any) -> bool:
    """Whether a sampler is one of keras-hub's, or none; a user's may be written for one backend."""
    return type(sampler).__module__.partition(".")[0] in ("keras_hub", types.__name__)


def keeps_rows(sampler: Any) -> bool:
    """Whether a sampler of keras-hub's leaves the cache as it is: each row goes on from its own."""
    import keras_hub

    is_base_s = type(sampler).__call__ is keras_hub.samplers.Sampler.__call__
    return is_base_s and is_keras_hub_s(sampler)


def is_plain(sampler: Any) -> bool:
    """Whether a sampler of keras-hub's goes on from one text at a time, and draws nothing."""
    import keras_hub

    base, own = keras_hub.samplers.Sampler, type(sampler)
    is_base_s = own.__call__ is base.__call__ and own.run_loop is base.run_loop
    return is_base_s and is_keras_hub_s(sampler) and not sampler.variables


def _tensors(nest: Tensors) -> list[Tensor]:
    return [ops.convert_to_tensor(t) for t in keras.tree.flatten(nest)]
