"""Rows of like length in one batch, so that little of it is padding.

The rows of a pool, of `POOL` batches one after another, are dealt anew to the same batches. So an
epoch holds the rows that it would hold otherwise, each as often, and every task has its share of
each pool. What is drawn here is drawn by NumPy, one generator per pool: a batch may be asked for
without those before it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mpt.data.task_rows import TaskRows
from keras_mpt.data.texts import TEXT_NAMES
from keras_mpt.types import Tensor

# Batches whose rows are dealt among them: with more, less is padding, and like rows come together
# for longer.
POOL = 32
# The end of a padding mask's name.
_MASK = "padding_mask"
# A word or a mark. A long word is several tokens, and so are words without spaces between them.
_PIECE, _BYTES = re.compile(r"\w+|[^\w\s]"), 6


def with_lengths(tasks: Mapping[str, TaskRows]) -> list[np.ndarray]:
    """Each task's number and its rows' lengths.

    A row is as long as its tokens up to the last that is no padding, those of an encoder and of a
    decoder together. Of text, whose tokens the model's preprocessor makes later, words and marks
    stand for them, all of a row's texts together: one for each six bytes (UTF-8) of a word.

    Args:
        tasks: dict of task name to rows, which all have the same inputs.

    Returns:
        A list of int64 arrays (N, 2), of (k, length).

    Raises:
        ValueError: rows that have neither text nor a padding mask.
    """
    found = []
    for k, (name, task) in enumerate(tasks.items()):
        masks = [v for n, v in task.x.items() if n.endswith(_MASK) and v.ndim == 2]
        texts = [v for n, v in task.x.items() if n in TEXT_NAMES]
        if not masks and not texts:
            raise ValueError(
                "`bucket_by_length` should be False where rows have neither text nor a "
                "'padding_mask' (N, S), by which their lengths differ. Received: "
                f"bucket_by_length=True and task {name!r} with inputs {list(task.x)}"
            )
        parts = [_words(text) for text in texts] or [last_used(mask) for mask in masks]
        lengths = np.sum(parts, axis=0)
        found.append(np.stack([np.full_like(lengths, k), lengths], axis=1))
    return found


def last_used(mask: Tensor) -> np.ndarray:
    """How long each row is, int64 (N,): up to the last place that is not 0.

    Args:
        mask: array (N, S).
    """
    is_used = np.asarray(mask) != 0
    after = np.argmax(is_used[:, ::-1], axis=1)
    return np.where(is_used.any(axis=1), is_used.shape[1] - after, 0).astype("int64")


def _words(text: np.ndarray) -> np.ndarray:
    """About how many tokens each row of text has, (N,)."""
    pieces = (_PIECE.findall(str(one)) for one in text.reshape(-1))
    sizes = [sum(-(-len(piece.encode()) // _BYTES) for piece in found) for found in pieces]
    return np.asarray(sizes, "int64").reshape(len(text), -1).sum(axis=1)


class BucketedRows:
    """A stream's rows, dealt by their lengths within each pool of batches: a source for Grain.

    Args:
        rows: the stream's rows, each found by its number.
        lengths: the same stream of `(task, length)` in the place of rows.
        batch_size: int. B.
        steps: int. Batches in an epoch, over whose end no pool goes.
        seed: int.
        keeps_tasks: bool. Whether a batch keeps the tasks that it has, with as many rows of each.
    """

    def __init__(
        self,
        rows: Any,
        lengths: Any,
        batch_size: int,
        steps: int,
        seed: int,
        keeps_tasks: bool,
    ) -> None:
        self.rows = rows
        self.lengths = lengths
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.keeps_tasks = keeps_tasks
        self._latest: tuple[tuple[int, int], np.ndarray] = (-1, -1), np.empty(0, "int64")

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> Any:
        batch, row = divmod(index, self.batch_size)
        epoch, step = divmod(batch, self.steps)
        pool, place = divmod(step, POOL)
        first = (epoch * self.steps + pool * POOL) * self.batch_size
        order = self._order(epoch, pool, first)
        return self.rows[first + int(order[place * self.batch_size + row])]

    def _order(self, epoch: int, pool: int, first: int) -> np.ndarray:
        # Several threads may read: each works on an order of its own, and all come to the same.
        which, order = self._latest
        if which != (epoch, pool):
            batches = min(POOL, self.steps - pool * POOL)
            found = [self.lengths[first + i] for i in range(batches * self.batch_size)]
            deal = _dealt_by_task if self.keeps_tasks else _dealt
            rng = np.random.default_rng((self.seed, epoch, pool))
            order = deal(np.asarray(found), batches, rng)
            self._latest = (epoch, pool), order
        return order


def _dealt(keys: np.ndarray, batches: int, rng: np.random.Generator) -> np.ndarray:
    """All rows by length, batch by batch; the batches in an order by chance, as rows are in each.

    Args:
        keys: int array (N, 2), of (task, length).
        batches: int.
        rng: generator.

    Returns:
        An int array (N,): which row stands at each place.
    """
    dealt = _sorted(keys[:, 1], rng).reshape(batches, -1)
    # Else each process's part of a batch would have rows of other lengths.
    return rng.permuted(rng.permutation(dealt), axis=1).reshape(-1)


def _dealt_by_task(keys: np.ndarray, batches: int, rng: np.random.Generator) -> np.ndarray:
    """Each task's rows by length, dealt to the places where the task stands, batch by batch."""
    order = np.empty(len(keys), "int64")
    rank = np.repeat(rng.permutation(batches), len(keys) // batches)
    for task in np.unique(keys[:, 0]):
        places = np.flatnonzero(keys[:, 0] == task)
        own = places[_sorted(keys[places, 1], rng)]
        order[places[_sorted(rank[places], rng)]] = own
    return order


def _sorted(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where the numbers stand, from the least on; equal ones come in an order by chance."""
    return np.lexsort((rng.random(len(values)), values))
