"""What the page's tables are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.timing import middle, ratios, spread
from tools.backends import NAMES


def least_seconds(seconds: dict[str, list[float]]) -> list[float] | None:
    """The bare backbone on the user's tokens and each prompt, where prompts can be shared."""
    if "prompts" not in seconds:
        return None
    return [a + b for a, b in zip(seconds["floor"], seconds["prompts"], strict=True)]


def peak(memory: dict[str, Any], backend: str, case: str, side: str) -> int | None:
    """Bytes of one case's side, where they were measured."""
    rows = memory.get(backend, {"rows": []})["rows"]
    found = [row["bytes"][side] for row in rows if row["case"] == case and side in row["bytes"]]
    # float32 of the variants is the case itself.
    return found[0] if found else None


def by_backend(results: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Results in one order, whatever was measured first."""
    return ((backend, results[backend]) for backend in NAMES if backend in results)


def in_rows(results: dict[str, Any], plain: bool = False) -> Iterator[tuple[str, Any]]:
    """Rows case by case, the backends of each together; `plain` leaves backends their own name."""
    found = list(by_backend(results))
    for i in range(len(found[0][1]["rows"])):
        for backend, result in found:
            yield (backend if plain else NAMES[backend]), result["rows"][i]


def in_time(seconds: Sequence[float]) -> str:
    value = middle(seconds)
    if value < 0.1:
        return f"{1000 * value:.2g} ms" if value < 0.01 else f"{1000 * value:.0f} ms"
    return f"{value:.2f} s"


def ratio(above: Sequence[float], below: Sequence[float]) -> str:
    value, low, high = spread(ratios(above, below))
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def quotient(above: float, below: float) -> str:
    return f"{above / below:.2f}" if below > 0 else "too short to tell"


def mebibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:,.0f} MiB"
