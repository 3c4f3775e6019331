"""What a language model decodes with: its decoders, and what was compiled of them."""

from __future__ import annotations

from keras_mpt.decoding.compiled import CompiledFunctions
from keras_mpt.decoding.decoder import Decoder, WholeText
from keras_mpt.decoding.reader import Reader


class Decoding:
    """A language model's ways to decode.

    Args:
        reader: how it reads a whole text.
        functions: the model's functions, compiled.
        cached: the decoder that keeps what can be kept, or `None` where nothing can.
    """

    def __init__(
        self,
        reader: Reader,
        functions: CompiledFunctions,
        cached: Decoder | None,
    ) -> None:
        self.reader = reader
        self.functions = functions
        self.cached = cached
        self.whole_text = WholeText(reader)

    def decoder(self, use_cache: bool) -> Decoder:
        """The decoder to use.

        Args:
            use_cache: bool. Whether to keep what can be kept.
        """
        return self.cached if use_cache and self.cached is not None else self.whole_text
