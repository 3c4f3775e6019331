"""Causal models: each task's prompt runs once, and so does each token."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from keras import ops

from keras_mpt.decoding.decoder import KeepsKeys
from keras_mpt.decoding.kept_prompts import KeptPrompts
from keras_mpt.decoding.reader import Reader
from keras_mpt.decoding.state import Context, RowPrompts
from keras_mpt.prompts.distinct import seen_tasks
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.splicing.apart import saves_time
from keras_mpt.splicing.cache_layout import Cache
from keras_mpt.splicing.prefix_cache import PrefixCache
from keras_mpt.splicing.row_blocks import number_of_blocks
from keras_mpt.splicing.shared_cache import SharedCache
from keras_mpt.types import Tensor, Tensors


class PrefixDecoder(KeepsKeys):
    """Keeps the keys and values of prompt and text.

    Args:
        reader: as in `Decoder`.
        prefix_cache: the keys and values after a prompt.
        kept_prompts: those of the tasks that were asked for last.
        is_apart: bool. Whether rows read their prompts where these are. Defaults to `False`: each
            has a copy.
        prompts_of: `prompts_of_tasks` of the reader's prompt layer, compiled. Defaults to `None`:
            as it is.
    """

    def __init__(
        self,
        reader: Reader,
        prefix_cache: PrefixCache,
        kept_prompts: KeptPrompts,
        is_apart: bool = False,
        prompts_of: Callable[[Tensors], Tensor] | None = None,
    ) -> None:
        super().__init__(reader)
        self.is_apart = is_apart
        self.prompts_of = prompts_of or functools.partial(prompts_of_tasks, reader.prompt)
        self.prefix_cache, self.kept_prompts = prefix_cache, kept_prompts

    def is_better(self, rows: int, more: int, task_ids: np.ndarray | None) -> bool:
        """Whether rows are better served so than with copies of their prompts.

        Args:
            rows: int. B.
            more: int. How many tokens a row has at most.
            task_ids: int array (B,), or `None` without tasks.
        """
        number = seen_tasks(task_ids, self.reader.prompt.tasks, rows, True)[1]
        cache = self.prefix_cache
        is_faster = saves_time(cache.length, rows, number_of_blocks(rows, number))
        return is_faster and cache.can_attend_apart(more)

    def row_prompts(self, task_ids: np.ndarray | None, rows: int) -> RowPrompts:
        """The caches of the batch's different prompts, kept or computed."""
        prompt = self.reader.prompt
        tasks, _, of_rows = seen_tasks(task_ids, prompt.tasks, rows, self.is_apart)
        prompts = self.prompts_of(() if tasks is None else tasks)
        # Without tasks the one prompt is kept as task 0's.
        caches = self.kept_prompts.get([0] if tasks is None else tasks.tolist(), prompts)
        return RowPrompts((), of_rows, caches)

    def run_text(
        self, text_ids: Tensor, context: Context, room: int, last: Tensor | None = None
    ) -> tuple[Tensor, Tensor, tuple[Cache | SharedCache, Tensor]]:
        """After the keys and values of each row's prompt."""
        prompts, more = context.prompts, text_ids.shape[1] + room
        cache: Cache | SharedCache
        if self.is_apart:
            cache = self.prefix_cache.for_rows_apart(prompts.caches, prompts.rows, more)
        else:
            cache = self.prefix_cache.for_rows(prompts.caches, prompts.rows, more)
        look_up = self.reader.look_up(0, prompts.table)
        given = text_ids, cache, 0, False, last, look_up
        logits, states, cache = self.prefix_cache.step(*given)
        return logits, states, (cache, prompts.table)

    def step(
        self, tokens: Tensor, cache: tuple[Cache | SharedCache, Tensor], index: int | Tensor
    ) -> tuple[Tensor, Tensor, tuple[Cache | SharedCache, Tensor]]:
        """Runs tokens that come after those in the cache."""
        kept, table = cache
        look_up = self.reader.look_up(0, table)
        logits, states, kept = self.prefix_cache.step(tokens, kept, index, look_up=look_up)
        return logits, states, (kept, table)

    def taken(
        self, cache: tuple[Cache | SharedCache, Tensor], rows: Tensor, queries: int
    ) -> tuple[Cache | SharedCache, Tensor]:
        """What is kept of some rows."""
        kept, table = cache
        if not isinstance(kept, SharedCache):
            return super().taken(cache, rows, queries)
        return kept.taken(rows, queries), super().taken(table, rows, queries)


def prompts_of_tasks(prompt: Prompt, tasks: Tensors) -> Tensor:
    """The prompts (K, L, d) of K tasks, a function to compile.

    Args:
        prompt: the prompt layer.
        tasks: int array (K,), whose ids were checked; `()` without tasks.
    """
    if isinstance(tasks, tuple):
        return prompt.for_rows(None, 1)
    ids = ops.convert_to_tensor(tasks)
    return prompt.for_rows(ids, ids.shape[0])
