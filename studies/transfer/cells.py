"""Cells of the page's tables."""

from __future__ import annotations

from collections.abc import Sequence

from studies.transfer.summary import Interval, mean_and_deviation


def rows_label(shots: int | str) -> str:
    """A number of rows per class, as it is shown."""
    return "full" if isinstance(shots, str) else f"k = {shots}"


def percent(values: Sequence[float]) -> str:
    """Their mean and deviation; empty without values."""
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def difference(found: Interval | None, note: str = "") -> str:
    """A difference and its interval, in points; empty without one."""
    if found is None:
        return ""
    mean, low, high = (100 * value for value in found)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}{note})"
