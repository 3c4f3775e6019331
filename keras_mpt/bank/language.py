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
from keras_mpt.bank.rows import check_rows_fit, last_tokens, own_prompts, placed_inputs
from keras_mpt.decoding.decoder import Decoder, WholeText
from keras_mpt.decoding.decoding import Decoding, Placed
from keras_mpt.decoding.encoder_decoder import encoder_decoder
from keras_mpt.decoding.kept_prompts import KeptPrompts
from keras_mpt.decoding.prefix_decoder import PrefixDecoder
from keras_mpt.decoding.reader import Reader
from keras_mpt.decoding.state import Context, RowPrompts
from keras_mpt.heads.head import FrozenHead
from keras_mpt.models.hub_task import hub_task
from keras_mpt.models.prompt_tuned_causal_lm import PromptTunedCausalLM
from keras_mpt.splicing.decoder_cache import decoder_cache
from keras_mpt.splicing.encoder_once import encoder_once
from keras_mpt.splicing.prefix_cache import PrefixCache, prefix_cache
from keras_mpt.splicing.view import View
from keras_mpt.types import Tensor, Tensors


class Decoders:
    """The ways to decode that a bank's calls share, and what was compiled of them.

    Args:
        kind: the adapters' kind.
        room: the sizes that are compiled.
        cache_bytes: int. How much is kept of prompts' keys and values. With 0 all prompts run by
            one compiled way, whatever their lengths.
    """

    def __init__(self, kind: Kind, room: Room, cache_bytes: int) -> None:
        self.kind, self.room, self.keeps = kind, room, cache_bytes > 0
        self.reader = Reader(kind.splice, kind.model.prompt, kind.head)
        self.whole_text = WholeText(self.reader)
        model = kind.model
        self.is_causal = isinstance(model, PromptTunedCausalLM)
        name = "CausalLM" if self.is_causal else "Seq2SeqLM"
        self._task, graph = hub_task(name, model.backbone, model.head_config)
        # Where it has layers of its own, they are fresh.
        kind.head.copy_to(FrozenHead(graph, model.backbone), [None])
        self._after_prefix: dict[int, PrefixDecoder | None] = {}
        self._after_encoder: Decoder | None = None
        if isinstance(model, PromptTunedCausalLM):
            kept = model.kept_prompts
            self._kept = KeptPrompts(kept.compute, kept.sample, cache_bytes)
        else:
            halves = encoder_once(kind.splice)
            own = None if halves is None else decoder_cache(self._task, kind.splice)
            self._after_encoder = encoder_decoder(self.reader, halves, own)

    def best(self, served: Sequence[Served], is_exact: bool) -> Decoder | None:
        """What keeps most for some prompts, or `None` where nothing can be kept.

        Args:
            served: the prompts.
            is_exact: bool. Whether they are of one length, all of which is to be kept.
        """
        if not self.is_causal:
            return self._after_encoder
        if any(s.adapter.at for s in served):
            return None
        shared = self.room.shared if self.keeps else 1
        shortest = min(s.adapter.length for s in served)
        return self._prefix_decoder(shortest if is_exact else shared if shortest >= shared else 1)

    def caches(self, decoder: PrefixDecoder, rows: Sequence[Served], first: np.ndarray) -> Tensors:
        """The keys and values after the first virtual tokens of each row's prompt.

        Args:
            decoder: what goes on from there.
            rows: what answers each row.
            first: float array (B, F, d). These tokens.
        """
        cache, functions = decoder.prefix_cache, self.kind.functions

        def compute(prompts: Tensor) -> Tensors:
            return functions.of(PrefixCache.after, cache)(prompts)

        # The same prompt is kept to different lengths.
        keys = [(served.key << 20) | cache.length for served in rows]
        return self._kept.get(keys, ops.convert_to_tensor(first), compute)

    def _prefix_decoder(self, length: int) -> PrefixDecoder | None:
        """What goes on after so many virtual tokens, which are run once for each prompt."""
        if length not in self._after_prefix:
            splice: Any = View(self.kind.splice, num_virtual_tokens=length)
            cache = prefix_cache(self._task, splice)
            decoder = None if cache is None else PrefixDecoder(self.reader, cache, self._kept)
            self._after_prefix[length] = decoder
        return self._after_prefix[length]


class CallDecoding(Decoding):
    """The ways to decode of one call.

    Args:
        decoders: those of the bank.
        served: the call's prompts: what its task ids stand for.
        alike: those of them that rows have, where all are of one length and in one place: rows get
            room for exactly that. Defaults to `None`: room for the bank's longest.
    """

    def __init__(
        self,
        decoders: Decoders,
        served: Sequence[Served],
        alike: Sequence[Served] | None = None,
    ) -> None:
        cached = decoders.best(alike or served, alike is not None)
        super().__init__(decoders.reader, decoders.kind.functions, cached)
        self.whole_text = decoders.whole_text
        self._decoders, self._splice, self._served = decoders, decoders.kind.splice, served
        self._longest = alike[0].adapter.length if alike else decoders.room.longest

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
        rows, splice = [self._served[k] for k in tasks], self._splice
        prompts = [s.adapter.prompt(s.task) for s in rows]
        last = len(splice.token_inputs) - 1
        for i in range(last):
            check_rows_fit(rows, last_tokens(rest, splice, i), splice, i)
        check_rows_fit(rows, lengths + follows, splice, last)
        shared, before = 0, RowPrompts(())
        if isinstance(decoder, PrefixDecoder):
            shared = decoder.prefix_cache.length
            first = np.stack([prompt[:shared] for prompt in prompts])
            caches = self._decoders.caches(decoder, rows, first)
            before = RowPrompts((), np.arange(len(rows), dtype="int32"), caches)
            prompts = [prompt[shared:] for prompt in prompts]
        own = own_prompts(rows, shared, len(splice.token_inputs))
        if shared and self._decoders.keeps and not own[-1].sizes.any():
            return Placed(token_ids, lengths, Context(before, rest))
        room = self._longest - shared
        x = {**rest, decoder.reader.ids_name: token_ids}
        x, places = placed_inputs(splice, x, own, room, shared)
        before = before._replace(table=table_of(prompts, room, splice.table_width))
        ids = x.pop(decoder.reader.ids_name)
        context = Context(before, x)
        return Placed(ids, lengths + own[-1].sizes, context, places[-1].of_tokens)
