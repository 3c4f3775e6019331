"""Causal models whose prompts stand after the text: each text runs once, whatever tasks ask it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from keras import ops

from keras_mpt.arrays import concrete, to_power_of_two
from keras_mpt.decoding.decoder import KeepsKeys
from keras_mpt.decoding.reader import Reader
from keras_mpt.decoding.state import Context, OneText
from keras_mpt.splicing.shared_cache import taken
from keras_mpt.splicing.text_cache import TextCache
from keras_mpt.types import Tensor, Tensors


class TextDecoder(KeepsKeys):
    """Keeps the keys and values of text and prompt. Rows that are read at once are equally long.

    Args:
        reader: as in `Decoder`.
        text_cache: the keys and values of texts.
    """

    # Where prompts stand is a number that a recording would hold on to.
    reading_is_recorded: ClassVar[bool] = False

    def __init__(self, reader: Reader, text_cache: TextCache) -> None:
        super().__init__(reader)
        self.text_cache = text_cache

    def beside(self, context: Context, token_ids: np.ndarray, lengths: np.ndarray) -> Context:
        """With the rows' different texts."""
        length = int(lengths[0])
        assert (lengths == length).all()
        _, first, of_rows = np.unique(
            token_ids[:, :length], axis=0, return_index=True, return_inverse=True
        )
        texts = to_power_of_two(first.astype("int32"))  # Each number of them is compiled.
        which = of_rows.reshape(-1).astype("int32")
        return context._replace(text=OneText(texts, which, np.asarray(length, "int32")))

    def run_text(
        self, text_ids: Tensor, context: Context, room: int, last: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Each different text, then each row's prompt, and its last token behind that."""
        text, length = context.text, self.text_cache.length
        rows = text_ids.shape[0]
        texts = ops.take(text_ids, text.rows, axis=0)
        states, cache = self.text_cache.read(texts, room + length)
        states, cache = taken((states, cache), text.of_rows)
        known = concrete(text.length)
        place = ops.cast(text.length, "int32") - 1 if known is None else int(known) - 1
        last_ids = ops.slice(text_ids, (0, place), (rows, 1))
        prompts = self.reader.prompts_of_rows(context.prompts, rows)
        logits, state, cache = self.text_cache.follow(prompts, last_ids, cache, place)
        is_last = ops.equal(ops.arange(text_ids.shape[1]), place)[None, :, None]
        return logits, ops.where(is_last, state, states), cache

    def step(
        self, tokens: Tensor, cache: Tensors, index: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Runs tokens that come after those in the cache; the last of a text once more."""
        return self.text_cache.prefix_cache.step(tokens, cache, index)
