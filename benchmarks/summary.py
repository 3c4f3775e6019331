"""PEFT's time over ours in every case, a column for each kind of processor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.cells import Parts, Run, ratio
from tools.backends import NAMES
from tools.markdown import table

_SUMMARY = """\
## Ratios, processor by processor

PEFT's time divided by ours, as in the sections below; empty where a processor has not run a case.

"""

# A part's name, what is said of its rows, and the times that are compared.
_OF = (
    ("training", "training", "peft", "ours"),
    ("long_prompts", "training", "peft", "ours"),
    ("label_words", "one word a text", "peft", "ours"),
    ("generation", "first token", "peft first", "ours first"),
    ("generation", "tokens per second", "peft", "ours"),
)


def summary(parts: Parts, machines: Iterable[str]) -> str:
    """The section."""
    letters = list(machines)
    lines = []
    for part, what, theirs, ours in _OF:
        found = parts.get(part, {})
        for case in dict.fromkeys(_name(row) for run in found for row in found[run]["rows"]):
            for backend in NAMES:
                rows = [_row(found.get(Run(backend, m)), case) for m in letters]
                cells = [
                    ratio(row["seconds"][theirs], row["seconds"][ours]) if row else ""
                    for row in rows
                ]
                if any(cells):
                    lines.append([f"{what}: {case}", NAMES[backend], *cells])
    return _SUMMARY + table(["case", "backend", *letters], lines)


def _name(row: dict[str, Any]) -> str:
    """A case's name; that of a dtype has it beside its own."""
    return ", ".join([row["case"], *([row["dtype"]] if "dtype" in row else [])])


def _row(found: dict[str, Any] | None, case: str) -> dict[str, Any] | None:
    rows = [] if found is None else found["rows"]
    return next((row for row in rows if _name(row) == case), None)
