"""Writes the page and the chart of a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.transfer.chart import CHART, draw
from benchmarks.transfer.log import Entry
from benchmarks.transfer.page import page
from benchmarks.transfer.summary import target_runs


def write(entries: Sequence[Entry], folder: Path) -> None:
    """README.md, and transfer.svg where there is anything to draw."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(page(entries), encoding="utf-8")
    runs = target_runs(entries)
    if runs:
        draw(runs, folder / CHART)
