"""What a tensor has at some of each row's positions, as a pure function."""

from __future__ import annotations

from keras import ops

from keras_mpt.types import Tensor


def at_positions(tensor: Tensor, positions: Tensor) -> Tensor:
    """`tensor[b, positions[b, k]]`: rows of one long table, so that the gradient is dense.

    Args:
        tensor: tensor, (B, S, …).
        positions: int tensor, (B, K), in [0, S); what is below 0 is taken for 0.

    Returns:
        A tensor, (B, K, …).
    """
    rows, length = ops.shape(tensor)[:2]
    index = ops.maximum(ops.cast(positions, "int32"), 0)
    index = index + length * ops.arange(rows, dtype="int32")[:, None]
    table = ops.reshape(tensor, (-1, *tensor.shape[2:]))
    return ops.take(table, index, axis=0)
