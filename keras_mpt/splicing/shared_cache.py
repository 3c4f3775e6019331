"""Rows' own keys and values, beside those of prompts that several rows read."""

from __future__ import annotations

from typing import NamedTuple

import keras
from keras import ops

from keras_mpt.splicing.cache_layout import Cache
from keras_mpt.splicing.joined_attention import Prefix
from keras_mpt.splicing.row_blocks import RowBlocks, row_blocks
from keras_mpt.types import Tensor, Tensors


class SharedCache(NamedTuple):
    """What is kept of rows whose prompts are not copied.

    Attributes:
        own: what each layer keeps of each row's own tokens, after a slot for the prompt.
        prefixes: what each layer keeps of the blocks' prompts.
        blocks: which rows have which.
    """

    own: Cache
    prefixes: list[Prefix]
    blocks: RowBlocks

    def taken(self, rows: Tensor, queries: int) -> SharedCache:
        """The same of some of the rows, which may repeat.

        Args:
            rows: int tensor (P,). These.
            queries: int. How many of their tokens come at once.
        """
        own = taken(self.own, rows)
        blocks = self.blocks
        if blocks.is_one:
            return self._replace(own=own)
        number, size = blocks.filled_by.shape
        of_rows = ops.take(ops.floor_divide(blocks.places, size), rows, axis=0)
        blocks = row_blocks(of_rows, number, queries)
        prefixes = [Prefix(*map(blocks.of_prompts, prefix)) for prefix in self.prefixes]
        return SharedCache(own, prefixes, blocks)


def taken(kept: Tensors, rows: Tensor) -> Tensors:
    """The given rows of every tensor."""
    return keras.tree.map_structure(lambda t: ops.take(t, rows, axis=0), kept)
