"""How rows are scored: the options, and the batches in which rows of like lengths are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_mpt.arrays import to_power_of_two, up_to_step
from keras_mpt.checks import check_choice, check_flags, check_size
from keras_mpt.decoding.candidates import Candidates
from keras_mpt.decoding.generation_inputs import check_rows_are_right

# Rows that are read at once: each has keys and values of its own.
_ROWS = 32


class Options(NamedTuple):
    """How continuations are scored.

    Attributes:
        normalize: string. "sum", or "mean" over a continuation's tokens. Defaults to `"sum"`.
        use_cache: bool. Whether to keep what can be kept. Defaults to `True`.
        batch_size: int. Rows that are read at once; `None` is 32. Defaults to `None`.
        calibrate: `False`, or what `content_free` takes. Defaults to `False`.
    """

    normalize: str = "sum"
    use_cache: bool = True
    batch_size: int | None = None
    calibrate: Any = False

    def check(self) -> None:
        """Refuses values that they cannot have."""
        check_choice("normalize", self.normalize, ("sum", "mean"))
        check_flags({"use_cache": self.use_cache})
        if self.batch_size is not None:
            check_size("batch_size", self.batch_size)


def in_batches(
    find: Callable[[np.ndarray, int], np.ndarray],
    lengths: np.ndarray,
    candidates: Candidates,
    batch_size: int | None,
    texts: np.ndarray | None = None,
) -> np.ndarray:
    """The scores (B, C) of rows that are read a batch at a time; −∞ for a candidate not there.

    Args:
        find: function of the indices of a batch's rows and of a width that holds them, which gives
            their scores.
        lengths: int array (B,), each row's tokens.
        candidates: the candidates of all rows.
        batch_size: int, or `None`.
        texts: int array (B, S), the rows' tokens, where rows of a batch must be equally long; those
            of one text then are in one, as far as they fit. Defaults to `None`.

    Raises:
        ValueError: scores that are NaN.
    """
    size = batch_size or _ROWS
    scores = np.zeros((len(lengths), len(candidates)), "float32")
    for rows, is_whole in _batches(lengths, size, texts):
        # A last batch of few sizes: each is compiled.
        padded = rows if is_whole else to_power_of_two(rows)[:size]
        scores[rows] = find(padded, up_to_step(int(lengths[rows].max())))[: len(rows)]
    check_rows_are_right(np.logical_not(np.isnan(scores).any(axis=1)))
    return np.where(candidates.are_there, scores, np.float32(-np.inf))


def _batches(
    lengths: np.ndarray, size: int, texts: np.ndarray | None
) -> Iterator[tuple[np.ndarray, bool]]:
    """The rows of each batch, and whether there are as many as were asked for."""
    # Rows of about one length together: each batch is as wide as its longest row.
    order, ends = np.argsort(lengths, kind="stable"), [len(lengths)]
    if texts is not None:
        order = np.lexsort((*texts.T[::-1], lengths))
        ends = np.searchsorted(lengths[order], np.unique(lengths), side="right").tolist()
    for first, end in zip([0, *ends], ends, strict=False):
        for start in range(first, end, size):
            rows = order[start : min(start + size, end)]
            yield rows, len(rows) == size or end == len(rows) == len(order)
