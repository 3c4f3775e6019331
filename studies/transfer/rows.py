"""Token arrays, and batches of them that are no wider than their longest row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

Inputs = dict[str, np.ndarray]


@dataclasses.dataclass
class Split:
    """All rows of a file.

    Attributes:
        x: the backbone's inputs, each (N, S).
        y: int array (N,).
        features: array (N, d) of the bare backbone's features; NaN where they are not known yet.
    """

    x: Inputs
    y: np.ndarray
    features: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of a split."""

    split: Split
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    @property
    def x(self) -> Inputs:
        return {name: value[self.index] for name, value in self.split.x.items()}

    @property
    def y(self) -> np.ndarray:
        return self.split.y[self.index]


def cropped(x: Inputs) -> Inputs:
    """The columns up to the longest row's last token; other arrays as they are."""
    width = int(x["padding_mask"].sum(axis=1).max())
    return {name: value[:, :width] if value.ndim == 2 else value for name, value in x.items()}


def training_batches(
    rows: Rows, batch_size: int, steps: int, seed: int, pool: int = 1
) -> Iterator[tuple[Inputs, np.ndarray]]:
    """`steps` batches; rows are shuffled anew each time all were used.

    A seed gives every method the same batches.

    Args:
        rows: those to train on.
        batch_size: int.
        steps: int.
        seed: int.
        pool: int. Of so many batches, but no more than hold each row once, the rows are dealt out
            by their lengths, which spares padding. Defaults to `1`: as shuffled.
    """
    rng, x, y = np.random.default_rng(seed), rows.x, rows.y
    size, waiting = min(batch_size, len(rows)), np.array([], int)
    pool = max(1, min(pool, len(rows) // size))
    lengths, pooled = x["padding_mask"].sum(axis=1), []
    for _ in range(steps):
        if not pooled:
            if len(waiting) < size * pool:
                waiting = np.concatenate([waiting, rng.permutation(len(rows))])
            taken, waiting = waiting[: size * pool], waiting[size * pool :]
            pooled = [taken[own] for own in dealt_by_length(lengths[taken], pool, rng)]
        taken = pooled.pop()
        yield cropped({name: value[taken] for name, value in x.items()}), y[taken]


def dealt_by_length(lengths: np.ndarray, parts: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The places of rows in so many parts of one size, each of like lengths; in any order."""
    if parts == 1:
        return [np.arange(len(lengths))]
    by_length = np.argsort(lengths, kind="stable").reshape(parts, -1)
    return [by_length[part] for part in rng.permutation(parts)]


def by_length(function: Callable[[Inputs], np.ndarray], rows: Rows, batch_size: int) -> np.ndarray:
    """`function` of all rows in batches of like lengths, its results in the rows' order."""
    x = rows.x
    order = np.argsort(x["padding_mask"].sum(axis=1), kind="stable")
    results = []
    for start in range(0, len(rows), batch_size):
        taken = order[start : start + batch_size]
        results.append(function(cropped({name: value[taken] for name, value in x.items()})))
    together = np.concatenate(results)
    placed = np.empty_like(together)
    placed[order] = together
    return placed
