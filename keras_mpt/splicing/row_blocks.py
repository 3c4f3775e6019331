"""Rows sorted into blocks, each of rows with one prompt, in shapes that are known beforehand."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from keras_mpt.types import Tensor

# What reading one more prompt costs, in queries of one row.
_COST_OF_PROMPT = 16
# The rows of a block where how many rows there are is not known.
_ROWS_OF_UNKNOWN = 4


class RowBlocks(NamedTuple):
    """G blocks of c rows. A row is in one of them, and what no row fills is a row's double.

    Attributes:
        prompts: int tensor (G,). Each block's prompt; `()` where there is one for all rows.
        filled_by: int tensor (G, c). The row in each place; `()` likewise.
        places: int tensor (B,). Each row's place, block after block; `()` likewise.
    """

    prompts: Any = ()
    filled_by: Any = ()
    places: Any = ()

    @property
    def is_one(self) -> bool:
        """Whether all rows have the one prompt."""
        return isinstance(self.places, tuple)

    def of_prompts(self, prompts: Tensor) -> Tensor:
        """What each block has of a tensor (K, …): (G, …)."""
        return prompts if self.is_one else ops.take(prompts, self.prompts, axis=0)

    def sorted(self, rows: Tensor) -> Tensor:
        """A tensor (B, …) in blocks, (G, c, …)."""
        return rows[None] if self.is_one else ops.take(rows, self.filled_by, axis=0)

    def back(self, blocks: Tensor) -> Tensor:
        """What `sorted` was given, of what it gave."""
        if self.is_one:
            return blocks[0]
        flat = ops.reshape(blocks, (-1, *ops.shape(blocks)[2:]))
        return ops.take(flat, self.places, axis=0)


def row_blocks(
    rows: Tensor, number: int, queries: int | None = 1, known: np.ndarray | None = None
) -> RowBlocks:
    """Rows by the prompt that they have.

    Args:
        rows: int tensor (B,). Which of the prompts each row has.
        number: int. K, how many prompts there are.
        queries: int. How many positions each row asks at once, or `None`. Defaults to 1.
        known: int array (B,). The same as `rows`, where it is known and blocks may be as many as
            it takes. Defaults to `None`: as many as it may take.
    """
    if number == 1:
        return RowBlocks()
    many = rows.shape[0]
    count: int | Tensor
    if many is None:
        size = _ROWS_OF_UNKNOWN
        count = (ops.shape(rows)[0] + number * (size - 1)) // size
    else:
        size, count = _best_size(many, number, queries or 1, known)
    rows = ops.cast(rows, "int32")
    is_of = ops.cast(ops.equal(rows[:, None], ops.arange(number, dtype="int32")), "int32")
    before = ops.sum((ops.cumsum(is_of, axis=0) - 1) * is_of, axis=1)
    blocks = ops.floor_divide(ops.sum(is_of, axis=0) + (size - 1), size)
    ends = ops.cumsum(blocks)
    places = ops.take((ends - blocks) * size, rows, axis=0) + before
    starts_after = ops.arange(count, dtype="int32")[:, None] >= ends
    prompts = ops.sum(ops.cast(starts_after, "int32"), axis=1)
    # Of a block without rows, whose numbers nobody reads: those of a row that is there.
    prompts = ops.where(prompts < number, prompts, rows[0])
    slots = ops.arange(count * size, dtype="int32")
    is_it = ops.cast(ops.equal(slots[:, None], places), "int32")
    is_it = ops.reshape(is_it, (-1, size, ops.shape(rows)[0]))
    is_like_it = ops.cast(ops.equal(prompts[:, None, None], rows), "int32")
    return RowBlocks(prompts, ops.argmax(2 * is_it + is_like_it, axis=-1), places)


def number_of_blocks(
    rows: int, number: int, queries: int = 1, known: np.ndarray | None = None
) -> int:
    """How many blocks so many rows are sorted into; as `row_blocks` does it."""
    return 1 if number == 1 else _best_size(rows, number, queries, known)[1]


def _best_size(rows: int, number: int, queries: int, known: np.ndarray | None) -> tuple[int, int]:
    """How many rows a block has, and how many blocks there are."""
    counts = None if known is None else np.bincount(known, minlength=number)
    sizes = {rows, *(2**i for i in range(int(math.log2(rows)) + 1))}
    sizes |= set() if counts is None else {int(counts.max())}

    def blocks(size: int) -> int:
        if counts is not None:
            return int((-(-counts // size)).sum())
        # Each prompt may leave all but one row of a block empty; there are no more than rows.
        return min(rows, (rows + number * (size - 1)) // size)

    def cost(size: int) -> int:
        return blocks(size) * (_COST_OF_PROMPT + queries * size)

    best = min(sorted(sizes), key=cost)
    return best, blocks(best)
