"""What a language model decodes with: its decoders, and what was compiled of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from keras_mpt.decoding.compiled import CompiledFunctions
from keras_mpt.decoding.decoder import Decoder, WholeText
from keras_mpt.decoding.prefix_decoder import PrefixDecoder
from keras_mpt.decoding.reader import Reader
from keras_mpt.decoding.state import Context


class Placed(NamedTuple):
    """Rows as a decoder reads them.

    Attributes:
        token_ids: int array (B, S), padded on the right.
        lengths: int array (B,). How many tokens each has.
        context: what stands before them.
        columns: int array (B, S). Where the tokens stand that were given; `None`: where they did.
    """

    token_ids: np.ndarray
    lengths: np.ndarray
    context: Context
    columns: np.ndarray | None = None


class Decoding:
    """A language model's ways to decode.

    Args:
        reader: how it reads a whole text.
        functions: the model's functions, compiled.
        cached: the decoder that keeps what can be kept, or `None` where nothing can.
        apart: the decoder that does so with prompts that rows read in common, or `None`.
    """

    def __init__(
        self,
        reader: Reader,
        functions: CompiledFunctions,
        cached: Decoder | None,
        apart: PrefixDecoder | None = None,
    ) -> None:
        self.reader = reader
        self.functions = functions
        self.cached, self.apart = cached, apart
        self.whole_text = WholeText(reader)

    def decoder(
        self, use_cache: bool, rows: int | None = None, more: int = 0, task_ids: Any = None
    ) -> Decoder:
        """The decoder to use.

        Args:
            use_cache: bool. Whether to keep what can be kept.
            rows: int. B, where rows stay as they are from token to token. Defaults to `None`.
            more: int. How many tokens a row has at most. Defaults to 0.
            task_ids: int array (B,), each row's task. Defaults to `None`.
        """
        apart = self.apart
        if apart and use_cache and rows is not None and apart.is_better(rows, more, task_ids):
            return apart
        return self.cached if use_cache and self.cached is not None else self.whole_text

    def placed(
        self,
        decoder: Decoder,
        token_ids: np.ndarray,
        lengths: np.ndarray,
        others: dict[str, Any],
        follows: int | np.ndarray,
    ) -> Placed:
        """Rows as the decoder reads them, and what stands before them.

        Args:
            decoder: what `decoder` gave.
            token_ids: int array (B, S). The rows' text, padded on the right.
            lengths: int array (B,). How many tokens each has.
            others: dict of the backbone's other inputs, and `task_ids`.
            follows: int, or int array (B,). How many tokens come after each row's own.
        """
        rest = {name: value for name, value in others.items() if name != "task_ids"}
        prompts = decoder.row_prompts(others.get("task_ids"), len(token_ids))
        context = decoder.beside(Context(prompts, rest), token_ids, lengths)
        return Placed(token_ids, lengths, context)
