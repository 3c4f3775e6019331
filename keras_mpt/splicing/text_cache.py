"""A causal model's keys and values of a text that prompts follow: computed once for all of them.

In a causal model nothing in a text depends on what comes after it, so tasks whose prompts stand
there have the text's keys and values in common.

Letters: U texts, B rows, S tokens of a text, L virtual tokens, d numbers of each.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_mpt.splicing.cache_layout import Cache, handed_to_layers
from keras_mpt.splicing.prefix_cache import PrefixCache
from keras_mpt.types import Tensor, Tensors


class TextCache:
    """Texts' keys and values, and those of prompts after them.

    Args:
        prefix_cache: the same with prompts in front. Its places count the prompt; so does what
            comes after both.
    """

    def __init__(self, prefix_cache: PrefixCache) -> None:
        self.prefix_cache = prefix_cache
        self.length = prefix_cache.length
        parts, _ = handed_to_layers(prefix_cache.task)
        # Shapes alone: of each layer, for as many rows and places as are asked for.
        self._parts = [keras.tree.map_structure(_spec, part) for part in parts]

    def read(self, text_ids: Tensor, more: int) -> tuple[Tensor, Tensors]:
        """Texts alone.

        Args:
            text_ids: int tensor (U, S).
            more: int. How many virtual and other tokens may come after them.

        Returns:
            Their hidden states (U, S, d), and their cache.
        """
        cache = self._empty(ops.shape(text_ids)[0], text_ids.shape[1] + more)
        given = text_ids, cache, -self.length
        _, states, filled = self.prefix_cache.step(*given, with_logits=False)
        return states, filled

    def follow(
        self, prompts: Tensor, last_ids: Tensor, cache: Tensors, place: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Prompts after all but the last token of their rows' text, and that token.

        Args:
            prompts: float tensor (B, L, d).
            last_ids: int tensor (B, 1). The last tokens.
            cache: the rows' texts, as `read` gave them.
            place: int or int tensor (). How many tokens come before: what is in the cache from
                there on is written over, or hidden by the causal mask.

        Returns:
            Logits (B, 1, V) after the last tokens, their states (B, 1, d), and the cache.
        """
        real = self.prefix_cache.task.backbone.token_embedding

        def look_up(ids: Tensor) -> Tensor:
            tokens = real(ids[:, self.length :])
            return ops.concatenate([ops.cast(prompts, tokens.dtype), tokens], axis=1)

        rows = ops.shape(last_ids)[0]
        ids = ops.pad(last_ids, [(0, 0), (self.length, 0)])
        last = ops.full((rows,), self.length, dtype="int32")
        given = ids, cache, place - self.length, False, last, look_up
        logits, states, filled = self.prefix_cache.step(*given)
        return logits, states[:, self.length :], filled

    def _empty(self, rows: int | Tensor, length: int) -> Cache:
        axis = self.prefix_cache.length_axis

        def zeros(spec: keras.KerasTensor) -> Tensor:
            shape = list(spec.shape)
            shape[0], shape[axis] = rows, length
            return ops.zeros(shape, spec.dtype)

        made = [keras.tree.map_structure(zeros, part) for part in self._parts]
        return [self.prefix_cache.apart(part) for part in made]


def _spec(tensor: Tensor) -> keras.KerasTensor:
    return keras.KerasTensor(tuple(tensor.shape), keras.backend.standardize_dtype(tensor.dtype))
