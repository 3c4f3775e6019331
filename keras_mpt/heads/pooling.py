"""From a feature per token to one per row."""

from __future__ import annotations

from keras import ops

from keras_mpt.types import Tensor


def mean_over_tokens(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of each row's tokens, padding left out.

    Args:
        tokens: float tensor (B, S, d).
        mask: integer or bool tensor (B, S), or `None` where all tokens count. Defaults to `None`.

    Returns:
        A float tensor (B, d).
    """
    if mask is None:
        return ops.mean(tokens, axis=1)
    weights = ops.cast(mask, tokens.dtype)[:, :, None]
    return ops.sum(tokens * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)


def last_token(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """The last token of each row that is no padding, on whichever side the padding is.

    Args:
        tokens: float tensor (B, S, d).
        mask: integer or bool tensor (B, S), or `None` where all tokens count. Defaults to `None`.

    Returns:
        A float tensor (B, d).
    """
    if mask is None:
        return tokens[:, -1]
    positions = ops.arange(ops.shape(mask)[1], dtype="int32")
    last = ops.max(ops.cast(mask, "int32") * positions, axis=1)
    index = ops.broadcast_to(last[:, None, None], (ops.shape(tokens)[0], 1, tokens.shape[-1]))
    return ops.take_along_axis(tokens, index, axis=1)[:, 0]


# By what a classifier's `pooling` calls them.
POOLS = {"mean": mean_over_tokens, "last": last_token}
