"""Candidates that begin alike, run once.

Of a candidate all tokens but the last are run, to see what comes after each. So of those that begin
alike the longest beginning tells of all: " very good", " very bad" and " very" are one run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from keras_mpt.arrays import to_power_of_two
from keras_mpt.decoding.candidates import Candidates

# How many run at once: each has keys and values of its own.
RUNS = 64


class Runs(NamedTuple):
    """R beginnings behind the text of rows that are equally long, and whom they tell of.

    Attributes:
        rows: int array (R,). Each one's row.
        tokens: int array (R, n). What is run, padded on the right.
        next: int array (R, n, G). What comes after each of these tokens, in up to G candidates.
        sizes: int array (R, G). How many tokens each of those has after the first.
        which: int array (R, G). The candidates; -1 for none.
    """

    rows: np.ndarray
    tokens: np.ndarray
    next: np.ndarray
    sizes: np.ndarray
    which: np.ndarray


def runs(lengths: np.ndarray, candidates: Candidates) -> Iterator[Runs]:
    """All that must run for the candidates' tokens after the first, in chunks.

    Args:
        lengths: int array (B,). How long each row's text is.
        candidates: the candidates of these rows.

    Yields:
        At most `RUNS` of rows that are equally long.
    """
    lists = candidates.lists_of(np.arange(len(lengths)))
    plans: dict[bytes, list[list[int]]] = {}
    found: list[tuple[int, list[int]]] = []
    for row, k in enumerate(lists):
        key = candidates.key_of(k)
        if key not in plans:
            plans[key] = groups(candidates.token_ids[k], candidates.lengths[k])
        found += [(row, group) for group in plans[key]]
    found.sort(key=lambda run: lengths[run[0]])
    ends = np.searchsorted([lengths[row] for row, _ in found], np.unique(lengths), side="right")
    for start, end in zip([0, *ends], ends, strict=False):
        for first in range(start, end, RUNS):
            chunk = found[first : min(first + RUNS, end)]
            yield _laid_out(candidates, lists, chunk)


def groups(token_ids: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    """Which of a list's candidates are one run; the first of each has the longest beginning.

    Args:
        token_ids: int array (C, N).
        lengths: int array (C,).
    """
    bodies = {c: tuple(token_ids[c, : size - 1]) for c, size in enumerate(lengths) if size > 1}
    found: list[list[int]] = []
    # Right before what it begins, if it begins any.
    for c in sorted(bodies, key=lambda c: bodies[c], reverse=True):
        longest = bodies[found[-1][0]] if found else ()
        if longest[: len(bodies[c])] == bodies[c]:
            found[-1].append(c)
        else:
            found.append([c])
    return found


def _laid_out(
    candidates: Candidates, lists: np.ndarray, chunk: list[tuple[int, list[int]]]
) -> Runs:
    members = max(len(group) for _, group in chunk)
    rows = np.asarray([row for row, _ in chunk], "int32")
    which = np.asarray([[*group, *[-1] * (members - len(group))] for _, group in chunk])
    of_rows = lists[rows][:, None]
    sizes = np.where(which < 0, 0, candidates.lengths[of_rows, which] - 1)
    tokens = candidates.token_ids[lists[rows], which[:, 0]][:, :-1]
    following = candidates.token_ids[of_rows, which][..., 1:]
    # Sizes of which few are compiled.
    following = to_power_of_two(following.swapaxes(0, 1)).transpose(1, 2, 0)
    of_group = to_power_of_two(sizes.T).T
    return Runs(rows, tokens, following, of_group, which)
