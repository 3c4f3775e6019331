"""A batch's rows, each with its own prompt put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mpt.bank.adapter import Served
from keras_mpt.bank.placing import OwnPrompts, Places, place
from keras_mpt.splicing.virtual_ids import VirtualIds


def own_prompts(rows: Sequence[Served], shared: int, inputs: int) -> list[OwnPrompts]:
    """The rows' prompts in each token input, but for what they share.

    Args:
        rows: what answers each row.
        shared: int. How many of their first virtual tokens stand elsewhere.
        inputs: int. How many token inputs the backbone has.
    """
    found = []
    for i in range(inputs):
        has_own = np.array([i < s.adapter.config.submodules for s in rows])
        sizes = np.array([s.adapter.length - shared for s in rows])
        at = np.array([s.adapter.at for s in rows])
        found.append(OwnPrompts(np.where(has_own, sizes, 0), np.where(has_own, at, 0)))
    return found


def placed_inputs(
    splice: VirtualIds,
    x: Mapping[str, Any],
    own: Sequence[OwnPrompts],
    room: int,
    shared: int = 0,
) -> tuple[dict[str, Any], list[Places]]:
    """The backbone's inputs with virtual tokens among them, and where the others stand.

    Args:
        splice: the bank's splice.
        x: mapping of the backbone's inputs, each (B, S).
        own: the rows' prompts in each token input.
        room: int. How many columns are added, as long as the backbone has positions for them.
        shared: int. How many virtual tokens stand in front of the columns. Defaults to 0.
    """
    made, all_places = dict(x), []
    for i, token_input in enumerate(splice.token_inputs):
        given, limit = np.shape(x[token_input.name])[1], splice.max_sequence_length
        columns = given + (room if own[i].sizes.any() else 0)
        columns = columns if limit is None else min(columns, limit - shared)
        places = Places(own[i], given, columns)
        made |= place(x, token_input, places, splice.vocabulary_sizes[i])
        all_places.append(places)
    return made, all_places


def check_rows_fit(rows: Sequence[Served], lengths: np.ndarray, splice: VirtualIds, i: int) -> None:
    """Refuses rows that the backbone has no positions for beside their prompts.

    Args:
        rows: what answers each row.
        lengths: int array (B,). How many tokens each has, with what follows them.
        splice: the bank's splice.
        i: int. Which of its `token_inputs` they are of.

    Raises:
        ValueError: a row that is too long, by its number.
    """
    limit = splice.max_sequence_length
    for row, (served, length) in enumerate(zip(rows, lengths, strict=True)):
        taken = served.adapter.length if i < served.adapter.config.submodules else 0
        if limit is not None and length + taken > limit:
            raise ValueError(
                f"`{splice.token_inputs[i].name}` should have at most {limit - taken} tokens, new "
                f"ones included, where {served.name!r} answers: the backbone has {limit} positions "
                f"and its prompt takes {taken}. Received: {int(length)} in row {row}"
            )


def last_tokens(x: Mapping[str, Any], splice: VirtualIds, i: int) -> np.ndarray:
    """How many columns each row needs for its tokens, int (B,)."""
    token_input = splice.token_inputs[i]
    ids = x[token_input.name]
    mask = x.get(str(token_input.mask_name), np.ones_like(ids))
    return np.asarray(((mask != 0) * np.arange(1, ids.shape[1] + 1)).max(axis=1))
