"""Writes the page and the chart of a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from studies.transfer.chart import CHART, draw
from studies.transfer.log import Entry
from studies.transfer.page import overview, page
from studies.transfer.summary import target_runs


def write(entries: Sequence[Entry], folder: Path) -> None:
    """README.md, and transfer.svg where there is anything to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(page(entries), encoding="utf-8")
    runs = target_runs(entries)
    if runs:
        draw(runs, folder / CHART)


# Around the means in the project's README.
FROM, TO = "<!-- from docs/studies/transfer -->\n", "<!-- to here -->\n"


def refresh(readme: Path, entries: Sequence[Entry]) -> None:
    """Puts the means over the targets into a file that has a place for them."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(FROM)
    _, found, after = rest.partition(TO)
    if not found:
        raise ValueError(f"`readme` should have {FROM!r} and {TO!r}. Received: {readme}")
    means = overview(target_runs(entries))
    readme.write_text(f"{before}{FROM}{means}{TO}{after}", encoding="utf-8")
