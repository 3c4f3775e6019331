"""Writes the page and the charts of a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studies.transfer.chart import draw
from studies.transfer.curves import draw_curves
from studies.transfer.log import Entry
from studies.transfer.page import chart_name, current, page
from studies.transfer.parts import PARTS
from studies.transfer.summary import target_runs
from studies.transfer.tables import overview


def write(entries: Sequence[Entry], folder: Path) -> None:
    """README.md, and each part's charts where there is anything to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(page(entries), encoding="utf-8")
    for part in PARTS.values():
        runs = target_runs(current(part, entries))
        if runs:
            draw(part, runs, folder / chart_name(part, "shots"))
            draw_curves(part, runs, folder / chart_name(part, "steps"))


# Around the means in the project's README.
FROM, TO = "<!-- from docs/studies/transfer -->\n", "<!-- to here -->\n"


def shown(entries: Sequence[Entry]) -> str:
    """The means over targets of the first part that has any."""
    for part in PARTS.values():
        runs = target_runs(current(part, entries))
        if runs:
            return f"{part.title}:\n\n{overview(part, runs)}"
    return ""


def refresh(readme: Path, entries: Sequence[Entry]) -> None:
    """Puts the means over the targets into a file that has a place for them."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(FROM)
    _, found, after = rest.partition(TO)
    if not found:
        raise ValueError(f"`readme` should have {FROM!r} and {TO!r}. Received: {readme}")
    readme.write_text(f"{before}{FROM}{shown(entries)}{TO}{after}", encoding="utf-8")
