"""Encoder-decoders: the encoder runs once, and where it can be, each of the decoder's tokens."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_mpt.decoding.decoder import Decoder, KeepsKeys, Rereads
from keras_mpt.decoding.reader import Reader
from keras_mpt.decoding.state import Context, RowPrompts
from keras_mpt.prompts.distinct import seen_tasks
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.splicing.decoder_cache import DecoderCache, DecoderState
from keras_mpt.splicing.encoder_once import Encoded, EncoderOnce
from keras_mpt.types import Tensor, Tensors


class EncodedRows(NamedTuple):
    """What is kept of an encoder, and the prompts that the decoder may have of its own.

    Attributes:
        encoded: the encoder's states and mask.
        prompts: float tensor (B, M·L, d).
    """

    encoded: Encoded
    prompts: Tensor


class EncoderOnceDecoder(Rereads):
    """Keeps the encoder's states; the decoder runs again for each new token.

    Args:
        reader: as in `Decoder`.
        encoder_once: the two halves of the backbone.
    """

    def __init__(self, reader: Reader, encoder_once: EncoderOnce) -> None:
        super().__init__(reader)
        self.encoder_once = encoder_once

    def row_prompts(self, task_ids: np.ndarray | None, rows: int) -> RowPrompts:
        """The batch's different tasks."""
        return _row_prompts(self.reader.prompt, task_ids, rows)

    def read(
        self, text_ids: Tensor, context: Context, room: int = 0, with_states: bool = False
    ) -> tuple[Tensor | None, EncodedRows]:
        """The encoder's states, and where they are needed the text's."""
        prompts = self.reader.prompts_of_rows(context.prompts, text_ids.shape[0])
        cache = EncodedRows(self.encoder_once.encode(context.others, prompts), prompts)
        states = self.reader.states(self.outputs(text_ids, cache)) if with_states else None
        return states, cache

    def outputs(self, token_ids: Tensor, cache: EncodedRows) -> Tensors:
        """The backbone's outputs at the user's positions, from the encoder's states."""
        text = self.reader.text(token_ids)
        outputs = self.encoder_once.decode(text, cache.encoded, cache.prompts)
        return self.reader.splice.user_positions(outputs)


class DecoderCacheDecoder(KeepsKeys):
    """Keeps the decoder's keys and values too.

    Args:
        reader: as in `Decoder`.
        encoder_once: the two halves of the backbone.
        decoder_cache: the decoder's keys and values.
    """

    def __init__(
        self, reader: Reader, encoder_once: EncoderOnce, decoder_cache: DecoderCache
    ) -> None:
        super().__init__(reader)
        self.encoder_once, self.decoder_cache = encoder_once, decoder_cache

    def row_prompts(self, task_ids: np.ndarray | None, rows: int) -> RowPrompts:
        """The batch's different tasks."""
        return _row_prompts(self.reader.prompt, task_ids, rows)

    def run_text(
        self, text_ids: Tensor, context: Context, room: int, last: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[DecoderState, Tensor]]:
        """By the encoder, and then the decoder after its prompt."""
        table = context.prompts.table
        prompts = self.reader.prompts_of_rows(context.prompts, text_ids.shape[0])
        encoded = self.encoder_once.encode(context.others, prompts)
        given = text_ids, encoded, prompts, room, last, self.reader.look_up(1, table)
        logits, states, cache = self.decoder_cache.after(*given)
        return logits, states, (cache, table)

    def step(
        self, tokens: Tensor, cache: tuple[DecoderState, Tensor], index: int | Tensor
    ) -> tuple[Tensor, Tensor, tuple[DecoderState, Tensor]]:
        """Runs tokens that come after those in the cache."""
        kept, table = cache
        given = tokens, kept, index, self.reader.look_up(1, table)
        logits, states, kept = self.decoder_cache.step(*given)
        return logits, states, (kept, table)


def encoder_decoder(
    reader: Reader, encoder_once: EncoderOnce | None, decoder_cache: DecoderCache | None
) -> Decoder | None:
    """The decoder that keeps most, or `None` where nothing can be kept."""
    if encoder_once is None:
        return None
    if decoder_cache is None:
        return EncoderOnceDecoder(reader, encoder_once)
    return DecoderCacheDecoder(reader, encoder_once, decoder_cache)


def _row_prompts(prompt: Prompt, task_ids: np.ndarray | None, rows: int) -> RowPrompts:
    tasks, _, of_rows = seen_tasks(task_ids, prompt.tasks, rows)
    return RowPrompts(() if tasks is None else tasks, of_rows)
