"""Cosines, in NumPy and float64.

A vector of zeros points nowhere: its cosine with anything is NaN, never 0, which would say that the
two are unlike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mpt.types import ArrayLike

# Rows of a table that are looked at together: of width 2,304, they take 75 MB.
_CHUNK_ROWS = 4096


def cosines(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Cosine of each vector of `a` with each of `b`.

    Args:
        a: float array (N, D).
        b: float array (K, D).

    Returns:
        A float64 array (N, K) in [−1, 1], NaN where either vector is zero.
    """
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    return _divided(a @ b.T, np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


def cosines_of_products(products: np.ndarray) -> np.ndarray:
    """Cosines of T vectors whose inner products with each other are known.

    Args:
        products: float64 array (T, T).

    Returns:
        A float64 array (T, T), NaN where either vector is zero.
    """
    norms = np.sqrt(np.diag(products))
    return _divided(products, norms, norms)


def top_cosines(
    vectors: ArrayLike, rows_of: Callable[[np.ndarray], Any], num_rows: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of a large table with the highest cosine to each vector.

    The table is read in chunks, so that it is never copied whole.

    Args:
        vectors: float array (N, d).
        rows_of: function of row numbers, an integer array (n,), that gives those rows, (n, d).
        num_rows: int. How many rows the table has.
        k: int. At most `num_rows`.

    Returns:
        `(rows, similarities)`, an integer and a float64 array (N, k), highest first. The lower row
        comes first among equals, and rows of zeros come last, with NaN.
    """
    rows, found = np.zeros((len(vectors), 0), "int64"), np.zeros((len(vectors), 0))
    for start in range(0, num_rows, _CHUNK_ROWS):
        chunk = np.arange(start, min(start + _CHUNK_ROWS, num_rows))
        found = np.concatenate([found, cosines(vectors, rows_of(chunk))], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(chunk, (len(rows), len(chunk)))], axis=1)
        # NaN is sorted last, whatever its sign.
        best = np.argsort(-found, axis=1, kind="stable")[:, :k]
        found, rows = (np.take_along_axis(x, best, axis=1) for x in (found, rows))
    return rows, found


def _divided(products: np.ndarray, a_norms: np.ndarray, b_norms: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(products / np.outer(a_norms, b_norms), -1, 1)
