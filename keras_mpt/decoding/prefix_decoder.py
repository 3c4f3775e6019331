"""Causal models: each task's prompt runs once, and so does each token."""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_mpt.decoding.decoder import KeepsKeys
from keras_mpt.decoding.kept_prompts import KeptPrompts
from keras_mpt.decoding.reader import Reader
from keras_mpt.decoding.state import Context, RowPrompts
from keras_mpt.prompts.distinct import seen_tasks
from keras_mpt.splicing.prefix_cache import Cache, PrefixCache
from keras_mpt.types import Tensor


class PrefixDecoder(KeepsKeys):
    """Keeps the keys and values of prompt and text.

    Args:
        reader: as in `Decoder`.
        prefix_cache: the keys and values after a prompt.
        kept_prompts: those of the tasks that were asked for last.
    """

    def __init__(
        self, reader: Reader, prefix_cache: PrefixCache, kept_prompts: KeptPrompts
    ) -> None:
        super().__init__(reader)
        self.prefix_cache, self.kept_prompts = prefix_cache, kept_prompts

    def row_prompts(self, task_ids: np.ndarray | None, rows: int) -> RowPrompts:
        """The caches of the batch's different prompts, kept or computed."""
        prompt = self.reader.prompt
        tasks, number, of_rows = seen_tasks(task_ids, prompt.tasks, rows)
        # As a tensor: these ids were checked, and are not looked at again.
        ids = None if tasks is None else ops.convert_to_tensor(tasks)
        prompts = prompt.for_rows(ids, number)
        # Without tasks the one prompt is kept as task 0's.
        caches = self.kept_prompts.get([0] if tasks is None else tasks.tolist(), prompts)
        return RowPrompts((), of_rows, caches)

    def run_text(
        self, text_ids: Tensor, context: Context, room: int, last: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Cache, Tensor]]:
        """After the keys and values of each row's prompt."""
        prompts, more = context.prompts, text_ids.shape[1] + room
        cache = self.prefix_cache.for_rows(prompts.caches, prompts.rows, more)
        look_up = self.reader.look_up(0, prompts.table)
        given = text_ids, cache, 0, False, last, look_up
        logits, states, cache = self.prefix_cache.step(*given)
        return logits, states, (cache, prompts.table)

    def step(
        self, tokens: Tensor, cache: tuple[Cache, Tensor], index: int | Tensor
    ) -> tuple[Tensor, Tensor, tuple[Cache, Tensor]]:
        """Runs tokens that come after those in the cache."""
        kept, table = cache
        look_up = self.reader.look_up(0, table)
        logits, states, kept = self.prefix_cache.step(tokens, kept, index, look_up=look_up)
        return logits, states, (kept, table)
