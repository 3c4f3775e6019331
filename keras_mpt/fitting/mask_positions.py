"""Where a masked language model is asked for tokens: P places of each row, (B, P)."""

from __future__ import annotations

import numpy as np

from keras_mpt.arrays import concrete
from keras_mpt.checks import check_integers
from keras_mpt.splicing.cut import TokenInput
from keras_mpt.types import Tensor

# keras-hub's name of the input.
MASK_POSITIONS = "mask_positions"


def check_mask_positions(x: dict[str, Tensor], token_input: TokenInput) -> None:
    """Refuses places that are none of a row's tokens.

    Args:
        x: dict of a batch's inputs, checked but for this one.
        token_input: the one whose tokens are asked for.

    Raises:
        ValueError: another shape than (B, P), or places outside of the row or at padding. 0 may be
            padding too: keras-hub's preprocessors fill what a row has less than P with it.
    """
    given, ids = x[MASK_POSITIONS], x[token_input.name]
    shape, rows = _shape(given), _shape(ids)
    if shape is not None and rows is not None:
        is_other = None not in (rows[0], shape[0]) and rows[0] != shape[0]
        if len(shape) != 2 or is_other or shape[1] == 0:
            raise ValueError(
                f"`{MASK_POSITIONS}` should have shape (batch_size, P), with a row for each row of "
                f"`{token_input.name}` and P at least 1. Received: {MASK_POSITIONS} of shape "
                f"{shape}, {token_input.name} of shape {rows}"
            )
    positions = concrete(given, MASK_POSITIONS)
    if positions is None or rows is None or rows[1] is None:
        return
    check_integers(MASK_POSITIONS, positions)
    is_place = (positions >= 0) & (positions < rows[1]) & (positions == np.floor(positions))
    name = token_input.mask_name
    mask = None if name is None else concrete(x[name], name)
    if mask is not None:
        places = np.clip(positions, 0, rows[1] - 1).astype("int64")
        is_token = np.take_along_axis(mask != 0, places, axis=1)
        is_place &= is_token | (positions == 0)
    if not is_place.all():
        row, column = (int(i) for i in np.argwhere(~is_place)[0])
        raise ValueError(
            f"`{MASK_POSITIONS}` should hold places of the row's own tokens, in [0, {rows[1]}) and "
            f"outside of padding; 0 with a `sample_weight` of 0 where there is none. Received: "
            f"{positions[row, column]} in row {row}, and {int((~is_place).sum())} wrong places in "
            "all"
        )


def _shape(tensor: Tensor) -> tuple[int | None, ...] | None:
    """The shape, or `None` where a traced tensor does not even know its rank."""
    return None if getattr(tensor.shape, "rank", 0) is None else tuple(tensor.shape)
