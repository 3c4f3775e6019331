"""Grids of rates that grow where the best one stands at an edge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

# At each of the two ends.
MOST_MORE = 2


def grown(rates: Sequence[float], score_of: Callable[[float], float | None]) -> tuple[float, ...]:
    """The grid as far as its scores have made it grow.

    Args:
        rates: the grid to begin with, in rising order.
        score_of: function of a rate that gives its score, or `None` where it has none yet.

    Returns:
        `rates` with up to `MOST_MORE` further ones at each end. A grid of one has nothing to tune.
    """
    found, below, above = list(rates), 0, 0
    while len(rates) > 1:
        scores = [score_of(rate) for rate in found]
        if any(score is None for score in scores):
            break
        at = best(found, score_of)
        if at == found[0] and below < MOST_MORE:
            found.insert(0, beside(found[0], up=False))
            below += 1
        elif at == found[-1] and above < MOST_MORE:
            found.append(beside(found[-1], up=True))
            above += 1
        else:
            break
    return tuple(found)


def best(rates: Sequence[float], score_of: Callable[[float], float | None]) -> float | None:
    """The rate that scores best; of equal ones that nearest the middle; `None` without all."""
    scores = {rate: score_of(rate) for rate in rates}
    if any(score is None for score in scores.values()):
        return None
    middle = (len(rates) - 1) / 2
    places = {rate: abs(place - middle) for place, rate in enumerate(rates)}
    return max(rates, key=lambda rate: (scores[rate], -places[rate]))


def middle(rates: Sequence[float]) -> float:
    """What stands where nothing was tuned: the second."""
    return rates[min(1, len(rates) - 1)]


def beside(rate: float, up: bool) -> float:
    """The next rate of 1, 3, 10, 30, …, which are about √10 apart."""
    power = math.floor(math.log10(rate) + 1e-9)
    is_one = rate / 10**power < 2
    if up:
        return float(f"{3 if is_one else 10}e{power}")
    return float(f"{3 if is_one else 1}e{power - 1 if is_one else power}")
