"""Several functions timed in turn, and what is said of the times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

REPEATS, WARM_UPS = 5, 1


def paired(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int = REPEATS,
    warm_ups: int = WARM_UPS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each function, round by round.

    A round runs each of them once, the next round in the opposite order, so that what slows the
    machine down for a while, or what one leaves behind for the next, meets all alike.

    Args:
        runs: functions by name. They return only when their work is done.
        repeats: int. Rounds that count. Defaults to `5`.
        warm_ups: int. Rounds before them that do not: compilation is in the first. Defaults to `1`.
        clock: function that gives seconds. Defaults to `time.perf_counter`.

    Returns:
        A list of `repeats` seconds under each name; those at one place are of one round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(warm_ups + repeats):
        order = list(runs.items())
        for name, run in order if i % 2 == 0 else order[::-1]:
            began = clock()
            run()
            took = clock() - began
            if i >= warm_ups:
                seconds[name].append(round(took, 7))
    return seconds


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """`above` divided by `below`, round by round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def middle(values: Sequence[float]) -> float:
    """The median."""
    return float(statistics.median(values))


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, the smallest and the largest."""
    return middle(values), min(values), max(values)
