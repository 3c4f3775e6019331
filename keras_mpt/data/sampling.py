"""How often each task is drawn, and which tasks a batch holds.

The paper's sampling is drawn here by NumPy, one generator per batch, so it is the same on every
backend. Which row of a task comes next is not drawn here: a task's rows come in its stream's order,
and the plan of an epoch counts how far each stream has been read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_mpt.checks import check_size, is_integer, is_number, received

_BY_SIZE = ("proportional", "temperature")


def task_weights(
    weights: Any, temperature: Any, sizes: Sequence[int], size_limit: Any = None
) -> list[float]:
    """How often each task is drawn, relative to the others.

    Args:
        weights: `"uniform"`, `"proportional"`, `"temperature"` or a positive number for each task.
        temperature: number above 0. `"temperature"` gives N_k^(1 / temperature).
        sizes: N_k, the number of rows of each task.
        size_limit: int. The most rows of a task that count for its weight; `None` counts all.
            Defaults to `None`.

    Returns:
        T positive numbers.

    Raises:
        ValueError: weights that do not fit, a temperature that is no finite number above 0, or a
            limit that is no size or has nothing to limit.

    Source: Raffel et al. 2020 (arXiv 1910.10683), section 3.5.2, for the limit.
    """
    if size_limit is not None:
        size_limit = check_size("size_limit", size_limit)
        if not isinstance(weights, str) or weights not in _BY_SIZE:
            raise ValueError(
                "`size_limit` should be left out where `weights` do not follow the tasks' rows, as "
                f"'proportional' and 'temperature' do. Received: size_limit={size_limit} with "
                f"weights={weights!r}"
            )
        sizes = [min(n, size_limit) for n in sizes]
    if not _is_positive(temperature):
        raise ValueError(
            "`temperature` should be a finite number above 0. Received: "
            f"temperature={temperature!r}"
        )
    if isinstance(weights, str):
        # Relative to the largest, so that nothing overflows; a weight of 0 would be no weight.
        warm = [max((n / max(sizes)) ** (1 / temperature), 1e-300) for n in sizes]
        known = {"uniform": [1] * len(sizes), "proportional": sizes, "temperature": warm}
        values = list(known.get(weights, []))
    else:
        values = list(weights) if isinstance(weights, (Sequence, np.ndarray)) else []
    if len(values) != len(sizes) or not all(_is_positive(w) for w in values):
        raise ValueError(
            "`weights` should be 'uniform', 'proportional', 'temperature' or "
            f"{len(sizes)} positive numbers. Received: weights={weights!r}"
        )
    return [float(w) for w in values]


def check_max_tasks(max_tasks: Any, num_tasks: int, batch_size: int) -> None:
    """Refuses a number of tasks that no batch could hold."""
    most = min(num_tasks, batch_size)
    if max_tasks is None or is_integer(max_tasks, 2, most + 1):
        return
    expected = f"None or an integer from 2 to {most}" if most > 1 else "None"
    raise ValueError(
        f"`max_tasks_per_batch` should be {expected} for {num_tasks} task"
        f"{'s' * (num_tasks > 1)} and batches of {batch_size}. Received: "
        f"max_tasks_per_batch={max_tasks!r}"
    )


def check_shard(shard: Any, batch_size: int) -> tuple[int, int]:
    """A part of every batch as Python's own integers; the whole of it where none is given.

    Args:
        shard: `(index, count)` or `None`.
        batch_size: int. B.

    Returns:
        `(index, count)`.

    Raises:
        ValueError: no such pair, an index outside [0, count), or a count that does not divide B:
            the mean over parts is that over the batch where these are equal.
    """
    if shard is None:
        return 0, 1
    is_pair = isinstance(shard, (tuple, list)) and len(shard) == 2 and is_integer(shard[1], 1)
    if not is_pair or not is_integer(shard[0], 0, shard[1]):
        raise ValueError(
            "`shard` should be None or (index, count), with an index from 0 to count - 1. "
            f"Received: shard={received(shard)}"
        )
    index, count = (int(value) for value in shard)
    if batch_size % count:
        raise ValueError(
            f"`batch_size` should be a multiple of the {count} shards, whose parts of a batch are "
            f"of one size. Received: batch_size={batch_size} with shard={(index, count)}"
        )
    return index, count


def draw_tasks(weights: Sequence[float], max_tasks: int, seed: Sequence[int]) -> np.ndarray:
    """The tasks of one batch: how many is uniform in {2..max_tasks}, then which, by weight.

    Args:
        weights: T positive numbers.
        max_tasks: int. K.
        seed: integers for `numpy.random.default_rng`.

    Returns:
        Distinct task numbers (m,), in the order in which they were drawn.
    """
    rng = np.random.default_rng(seed)
    count = rng.integers(2, max_tasks + 1)
    # A clock per task that rings at rate w_k: the next to ring is task k with the chance of w_k
    # among those that have not rung, which is to draw without replacement.
    rings = np.log(rng.standard_exponential(len(weights))) - np.log(weights)
    return np.argsort(rings)[:count]


class _Plan(NamedTuple):
    """The rows of an epoch (steps, B, 2), and how many each task has given by its end (T,)."""

    epoch: int
    rows: np.ndarray
    given: np.ndarray


class SampledRows:
    """Row of the mix to task and row of that task's stream: a selection map for Grain.

    A batch's rows are divided over its tasks as evenly as can be: those drawn first have one more
    where they do not divide. An epoch is planned once, when its first row is asked for; one
    further on needs those before it counted.

    Args:
        weights: T positive numbers.
        max_tasks: int. K.
        batch_size: int. B.
        steps: int. Batches in an epoch.
        seed: int.
    """

    def __init__(
        self, weights: Sequence[float], max_tasks: int, batch_size: int, steps: int, seed: int
    ) -> None:
        self.weights = weights
        self.max_tasks = max_tasks
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        nothing = np.zeros(len(weights), "int64")
        self._start = self._latest = _Plan(-1, np.empty((0, batch_size, 2), "int64"), nothing)

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> tuple[int, int]:
        batch, row = divmod(index, self.batch_size)
        epoch, step = divmod(batch, self.steps)
        task, place = self._plan(epoch).rows[step, row].tolist()
        return task, place

    def _plan(self, epoch: int) -> _Plan:
        # Several threads may read: each works on a plan of its own, and all come to the same.
        plan = self._latest
        if plan.epoch > epoch:
            plan = self._start
        while plan.epoch < epoch:
            plan = self._after(plan)
        self._latest = plan
        return plan

    def _after(self, plan: _Plan) -> _Plan:
        epoch, given = plan.epoch + 1, plan.given.copy()
        rows = np.empty((self.steps, self.batch_size, 2), "int64")
        places = np.arange(self.batch_size)
        for step in range(self.steps):
            seed = (self.seed, epoch * self.steps + step)
            tasks = draw_tasks(self.weights, self.max_tasks, seed)
            turn, who = np.divmod(places, len(tasks))
            rows[step, :, 0] = tasks[who]
            rows[step, :, 1] = given[tasks[who]] + turn
            given[tasks] += np.bincount(who)
        return _Plan(epoch, rows, given)


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0
