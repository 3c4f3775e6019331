"""Attention over a prompt that many rows share, and over each row's own tokens, made one.

Softmax over both is the mean of the two attentions by their sums of exponentials (Juravsky et al.
2024, Hydragen). So the prompt's keys and values are read once for all its rows, as one matrix
product, and need not lie in each row's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from keras import ops

from keras_mpt.splicing.row_blocks import RowBlocks
from keras_mpt.types import Tensor

_NEVER = -1e30


class Attended(NamedTuple):
    """Attention over some keys, before it is divided by its sum.

    Attributes:
        values: float tensor (…, D), the values by the exponentials of their scores.
        total: float tensor (…, 1), the sum of the exponentials.
        largest: float tensor (…, 1). The score that they were taken less.
    """

    values: Tensor
    total: Tensor
    largest: Tensor


class Prefix(NamedTuple):
    """What a layer keeps of G blocks' prompts.

    Attributes:
        keys: float tensor (G, h, L, D), of h heads.
        values: float tensor (G, h, L, D).
    """

    keys: Tensor
    values: Tensor


def as_prefix(pair: Sequence[Tensor], blocks: RowBlocks) -> Prefix:
    """A layer's `Prefix`, from keys and values (K, L, h, D) of K prompts."""
    keys, values = (ops.transpose(blocks.of_prompts(t), (0, 2, 1, 3)) for t in pair)
    return Prefix(keys, values)


def attend_after(
    prefix: Prefix,
    blocks: RowBlocks,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """Attention over a row's prompt and its own tokens.

    Args:
        prefix: the blocks' prompts, all of which may be looked at.
        blocks: the rows' blocks.
        query: float tensor (B, S, H, D), of a multiple of h heads.
        key: float tensor (B, N, h or H, D). Each row's own.
        value: float tensor (B, N, h or H, D).
        mask: bool tensor (B, S, N), or `None`. Which of a row's own each query may look at, if any.
        scale: float. What scores are multiplied by.

    Returns:
        A float tensor (B, S, H, D).
    """
    dtype = query.dtype
    query = query * ops.cast(scale, dtype)
    before, own = _over_prefix(prefix, blocks, query), _over_own(query, key, value, mask)
    largest = ops.maximum(before.largest, own.largest)
    parts = [(part, ops.exp(part.largest - largest)) for part in (before, own)]
    total = sum(part.total * weight for part, weight in parts)
    return ops.cast(sum(part.values * weight for part, weight in parts) / total, dtype)


def _over_prefix(prefix: Prefix, blocks: RowBlocks, query: Tensor) -> Attended:
    """Of each row's prompt, (B, S, H, …)."""
    _, length, heads, dim = ops.shape(query)
    kept = prefix.keys.shape[1]
    asked = ops.reshape(query, (-1, length, kept, heads // kept, dim))
    asked = ops.transpose(blocks.sorted(asked), (0, 3, 1, 2, 4, 5))
    shape = ops.shape(asked)
    asked = ops.reshape(asked, (*shape[:2], -1, dim))
    scores = ops.matmul(asked, ops.transpose(prefix.keys, (0, 1, 3, 2)))
    weights, total, largest = _exponentials(scores)
    values = ops.matmul(ops.cast(weights, prefix.values.dtype), prefix.values)

    def of_rows(found: Tensor) -> Tensor:
        found = ops.reshape(ops.cast(found, "float32"), (*shape[:-1], -1))
        found = blocks.back(ops.transpose(found, (0, 2, 3, 1, 4, 5)))
        return ops.reshape(found, (-1, length, heads, ops.shape(found)[-1]))

    return Attended(*map(of_rows, (values, total, largest)))


def _over_own(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Attended:
    """Of each row's own tokens, (B, S, H, …)."""
    _, length, heads, dim = ops.shape(query)
    kept = key.shape[2]
    asked = ops.reshape(query, (-1, length, kept, heads // kept, dim))
    scores = ops.cast(ops.einsum("bskgd,bnkd->bkgsn", asked, key), "float32")
    if mask is not None:
        scores = ops.where(ops.cast(mask, "bool")[:, None, None], scores, _NEVER)
    weights, total, largest = _exponentials(scores)
    values = ops.einsum("bkgsn,bnkd->bkgsd", ops.cast(weights, value.dtype), value)

    def of_rows(found: Tensor) -> Tensor:
        found = ops.transpose(ops.cast(found, "float32"), (0, 3, 1, 2, 4))
        return ops.reshape(found, (-1, length, heads, ops.shape(found)[-1]))

    return Attended(*map(of_rows, (values, total, largest)))


def _exponentials(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of scores less their largest, in float32; their sum, and the largest."""
    scores = ops.cast(scores, "float32")
    # What they are taken less changes nothing in the end, and so has no gradient.
    largest = ops.stop_gradient(ops.max(scores, axis=-1, keepdims=True))
    weights = ops.exp(scores - largest)
    return weights, ops.sum(weights, axis=-1, keepdims=True), largest
