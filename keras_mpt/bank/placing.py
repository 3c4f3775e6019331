"""Rows with their own prompts among their tokens, as `VirtualIds` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_mpt.splicing.cut import TokenInput


class OwnPrompts(NamedTuple):
    """The prompts of a batch's rows in one token input.

    Attributes:
        sizes: int array (B,). How many virtual tokens each row has.
        at: int array (B,). Behind how many of its tokens they stand.
    """

    sizes: np.ndarray
    at: np.ndarray


class Places:
    """Where the tokens of one token input come to stand.

    Args:
        own: the rows' prompts.
        width: int. S, the columns of the tokens as they are given.
        columns: int. How many columns there are then.
    """

    def __init__(self, own: OwnPrompts, width: int, columns: int) -> None:
        self.own, self.width = own, width
        sizes, at, place = own.sizes[:, None], own.at[:, None], np.arange(columns)[None]
        self.order = np.where(place < at, 0, place - at)
        self.is_virtual = (place >= at) & (place < at + sizes)
        self._source = np.where(place < at, place, place - sizes)
        self.is_given = ~self.is_virtual & (self._source < width)

    @property
    def of_tokens(self) -> np.ndarray:
        """The column of each given token, int32 (B, S); the last one for what found no place."""
        token = np.arange(self.width)[None]
        moved = np.where(token < self.own.at[:, None], token, token + self.own.sizes[:, None])
        return np.minimum(moved, self.order.shape[1] - 1).astype("int32")

    def moved(self, values: np.ndarray, virtual: int | np.ndarray, beyond: int) -> np.ndarray:
        """What is given for each token, in the places that the tokens have now.

        Args:
            values: int array (B, S).
            virtual: int or int array (B, columns). What virtual tokens get.
            beyond: int. What stands behind a row.

        Returns:
            An int32 array (B, columns).
        """
        source = np.clip(self._source, 0, self.width - 1)
        found = np.take_along_axis(np.asarray(values), source, axis=1)
        found = np.where(self.is_given, found, beyond)
        return np.where(self.is_virtual, virtual, found).astype("int32")


def place(
    x: Mapping[str, Any], token_input: TokenInput, places: Places, vocabulary_size: int
) -> dict[str, np.ndarray]:
    """One token input's arrays, with the rows' virtual tokens among them.

    Args:
        x: mapping of the backbone's inputs, each (B, S). Of those beside the ids, some may be left
            out.
        token_input: which of them these are.
        places: where its tokens stand.
        vocabulary_size: int. V.

    Returns:
        A dict of int32 arrays (B, columns).
    """
    own = places.own
    # Behind a row stands a token of the vocabulary, which a mask hides.
    made = {token_input.name: places.moved(x[token_input.name], vocabulary_size + places.order, 0)}
    mask_name = token_input.mask_name
    if mask_name is not None and mask_name in x:
        made[mask_name] = places.moved(x[mask_name], 1, 0)
    for name in token_input.other_names:
        if name in x and name in token_input.position_names:
            values, at = np.asarray(x[name]), own.at[:, None]
            is_before = np.arange(values.shape[1]) < at
            after = np.where(is_before, values, values + own.sizes[:, None])
            made[name] = places.moved(after, values[:, :1] + at + places.order, 0)
        elif name in x:
            made[name] = places.moved(x[name], 0, 0)
    return made


def table_of(prompts: Sequence[np.ndarray], room: int, width: int) -> np.ndarray:
    """The rows' virtual tokens in one array.

    Args:
        prompts: list of B float arrays (L, M·d), each of its own L and M.
        room: int. R, no smaller than any L.
        width: int. The most that a prompt is wide; narrower ones get zeros.

    Returns:
        A float32 array (B, R, width).
    """
    table = np.zeros((len(prompts), room, width), "float32")
    for row, prompt in zip(table, prompts, strict=True):
        row[: prompt.shape[0], : prompt.shape[1]] = prompt
    return table
