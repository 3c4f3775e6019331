"""A bank's language models: every row after its own prompt, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_mpt.bank.adapter import Served
from keras_mpt.bank.kind import Kind
from keras_mpt.bank.placing import table_of
from keras_mpt.bank.room import Room
from keras_mpt.bank.rows import check_rows_fit, own_prompts, placed_inputs
from keras_mpt.decoding.decoder import Decoder, WholeText
from keras_mpt.decoding.decoding import Decoding, Placed
from keras_mpt.decoding.encoder_decoder import encoder_decoder
from keras_mpt.decoding.kept_prompts import KeptPrompts
from keras_mpt.decoding.prefix_decoder import PrefixDecoder
from keras_mpt.decoding.reader import Reader
from keras_mpt.decoding.state import Context, RowPrompts
from keras_mpt.models.hub_task import hub_task
from keras_mpt.models.prompt_tuned_causal_lm import PromptTunedCausalLM
from keras_mpt.splicing.decoder_cache import decoder_cache
from keras_mpt.splicing.encoder_once import encoder_once
from keras_mpt.splicing.prefix_cache import PrefixCache, prefix_cache
from keras_mpt.splicing.view import View
from keras_mpt.types import Tensor


class Decoders:
    """The ways to decode that a bank's calls share, and what was compiled of them.

    Args:
        kind: the adapters' kind.
        room: the sizes that are compiled.
        cache_bytes: int. How much is kept of prompts' keys and values.
    """

    def __init__(self, kind: Kind, room: Room, cache_bytes: int) -> None:
        self.kind, self.room, self.cache_bytes = kind, room, cache_bytes
        self.reader = Reader(kind.splice, kind.model.prompt, kind.head)
        self.whole_text = WholeText(self.reader)
        is_causal = isinstance(kind.model, PromptTunedCausalLM)
        name = "CausalLM" if is_causal else "Seq2SeqLM"
        self._task, _ = hub_task(name, kind.model.backbone, kind.model.head_config)
        self._after_prefix: dict[int, PrefixDecoder | None] = {}
        self._after_encoder: Decoder | None = None
        if not is_causal:
            halves = encoder_once(kind.splice)
            own = None if halves is None else decoder_cache(self._task, kind.splice)
            self._after_encoder = encoder_decoder(self.reader, halves, own)

    def best(self, served: Sequence[Served]) -> Decoder | None:
        """What keeps most for some prompts, or `None` where nothing can be kept."""
        if not isinstance(self.kind.model, PromptTunedCausalLM):
            return self._after_encoder
        if any(s.adapter.at for s in served):
            return None
        is_long = all(s.adapter.length >= self.room.shared for s in served)
        return self._prefix_decoder(self.room.shared if is_long else 1)

    def _prefix_decoder(self, length: int) -> PrefixDecoder | None:
        """What goes on after so many virtual tokens, which are run once for each prompt."""
        if length not in self._after_prefix:
            splice: Any = View(self.kind.splice, num_virtual_tokens=length)
            cache = prefix_cache(self._task, splice)
            decoder = None
            if cache is not None:
                decoder = PrefixDecoder(self.reader, cache, self._kept(cache))
            self._after_prefix[length] = decoder
        return self._after_prefix[length]

    def _kept(self, cache: PrefixCache) -> KeptPrompts:
        functions, model = self.kind.functions, self.kind.model
        assert isinstance(model, PromptTunedCausalLM)

        def compute(prompts: Tensor) -> Any:
            return functions.of(PrefixCache.after, cache)(prompts)

        return KeptPrompts(compute, model.kept_prompts.sample, self.cache_bytes)


class CallDecoding(Decoding):
    """The ways to decode of one call.

    Args:
        decoders: those of the bank.
        served: the call's prompts: what its task ids stand for.
    """

    def __init__(self, decoders: Decoders, served: Sequence[Served]) -> None:
        super().__init__(decoders.reader, decoders.kind.functions, decoders.best(served))
        self.whole_text = decoders.whole_text
        self._splice, self._room, self._served = decoders.kind.splice, decoders.room, served

    def placed(
        self,
        decoder: Decoder,
        token_ids: np.ndarray,
        lengths: np.ndarray,
        others: dict[str, Any],
        follows: int | np.ndarray,
    ) -> Placed:
        """Rows behind their own prompts: what is shared of these is kept, the rest stands in them.

        Raises:
            ValueError: a row that is too long with its prompt.
        """
        rest = {name: value for name, value in others.items() if name != "task_ids"}
        tasks = np.broadcast_to(np.asarray(others.get("task_ids", 0)), (len(token_ids),))
        rows = [self._served[k] for k in tasks]
        prompts = [s.adapter.prompt(s.task) for s in rows]
        shared, before = 0, RowPrompts(())
        if isinstance(decoder, PrefixDecoder):
            shared = decoder.prefix_cache.length
            first = ops.convert_to_tensor(np.stack([prompt[:shared] for prompt in prompts]))
            caches = decoder.kept_prompts.get([s.key for s in rows], first)
            before = RowPrompts((), np.arange(len(rows), dtype="int32"), caches)
            prompts = [prompt[shared:] for prompt in prompts]
        own = own_prompts(rows, shared, len(self._splice.token_inputs))
        check_rows_fit(rows, lengths + follows, self._splice)
        if shared and not own[-1].sizes.any():
            return Placed(token_ids, lengths, Context(before, rest))
        room = self._room.longest - shared
        x = {**rest, decoder.reader.ids_name: token_ids}
        x = placed_inputs(self._splice, x, own, room, shared)[0]
        before = before._replace(table=table_of(prompts, room, self._splice.table_width))
        ids = x.pop(decoder.reader.ids_name)
        return Placed(ids, lengths + own[-1].sizes, Context(before, x))
