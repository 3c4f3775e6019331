"""A part of the study: a model, methods on it, tasks and budgets."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from studies.transfer.job import Method
from studies.transfer.log import Entry
from studies.transfer.plan import Budget

# A pair of methods: the first less the second.
Pairs = Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Wave:
    """Runs that belong together, in the order of what decides most.

    Attributes:
        shots: rows per class.
        seeds: int, of few-shot runs.
        methods: names; `None` for all.
        targets: names; `None` for all.
    """

    shots: tuple[int | str, ...]
    seeds: int
    methods: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """What a part consists of.

    Attributes:
        name: string, in the log and on the command line.
        title: string, on the page.
        methods: the methods by their names, in the page's order.
        targets: names of the tasks to learn.
        budget: what a whole run has.
        quick: what a quick run has.
        waves: a whole run's parts, the most telling first.
        quick_targets: of a quick run.
        settings: what its runs have in common beside what the budget says.
        open_bench: function of the command line that gives the part's workbench.
        compared: pairs of methods whose differences on targets are shown.
        compared_sources: pairs whose differences on sources are shown.
        about: string. How it is measured, on the page.
        styles: each method's colour, line and marker.
        largest: the share of the largest class among each task's test rows.
    """

    name: str
    title: str
    methods: Mapping[str, Method]
    targets: tuple[str, ...]
    budget: Budget
    quick: Budget
    waves: tuple[Wave, ...]
    quick_targets: tuple[str, ...]
    settings: Mapping[str, Any]
    open_bench: Callable[[argparse.Namespace, Budget], Any]
    compared: Pairs
    compared_sources: Pairs
    about: str
    styles: Mapping[str, tuple[str, str, str]]
    largest: Mapping[str, float]


def of_part(entries: Iterable[Entry], name: str) -> list[Entry]:
    """The lines of one part. Those of before there were parts are of heads."""
    return [e for e in entries if e["settings"].get("part", "heads") == name]
