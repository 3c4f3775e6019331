"""Runs what a plan asks for and the log has not got, beside other processes at the same list."""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from studies.transfer import plan
from studies.transfer.claims import alone, claim
from studies.transfer.execute import execute
from studies.transfer.kept import keep, restore
from studies.transfer.log import Entry, Log, key
from studies.transfer.part import Part
from tools.machine import gpu, processor, versions
from tools.threads import pin_threads

PACKAGES = ("keras", "keras-hub", "torch", "peft", "transformers", "numpy")
# Until another process has done what it is at.
_WAIT = 5.0


class Runner:
    """A part's runs.

    Args:
        part: the part.
        log: where finished runs go.
        bench: the part's workbench.
        work: folder of trained sources, and of what processes have claimed.
        is_busy: bool. Whether the machine does other work, so that seconds say nothing. Defaults to
            `False`.
    """

    def __init__(self, part: Part, log: Log, bench: Any, work: Path, is_busy: bool = False) -> None:
        self.part, self.log, self.bench, self.work = part, log, bench, work
        # What a run was had on, beside what it is of.
        self._on = {
            "threads": pin_threads(),
            **({"accelerator": name} if (name := gpu()) else {}),
            **({"busy": True} if is_busy else {}),
        }
        with alone(work / "claims", "kept sources"):
            restore(log.file.parent, work)

    def run(self, asked: plan.Asked, stages: Iterable[str]) -> None:
        """Each stage's runs follow from what the one before it logged."""
        entries, stages = self.log.entries, list(stages)
        missing = {method.name: method.missing() for method in asked.methods}
        for name, what in missing.items():
            if what:
                sys.exit(f"{name} needs {what}")
        parts: dict[str, list[Callable[[], Iterable[Entry]]]] = {
            "tune": [
                lambda: plan.tuning_runs(asked, entries),
                lambda: plan.choosing_runs(asked, entries),
            ],
            "sources": [lambda: plan.source_runs(asked, entries)],
            "targets": [lambda: plan.target_runs(asked, entries)],
        }
        for stage, own in parts.items():
            for runs in own if stage in stages else []:
                self._run_all(runs, asked)

    def _run_all(self, wanted: Callable[[], Iterable[Entry]], asked: plan.Asked) -> None:
        """Until all are in the log: grids may have grown meanwhile."""
        while True:
            self.log.refresh()
            waiting = self._waiting(wanted())
            if not waiting:
                return
            ran = False
            for place, run in enumerate(waiting):
                with claim(self.work / "claims", run) as ours:
                    self.log.refresh()
                    if not ours or self.log.find(run) is not None:
                        continue
                    sources = plan.possible_sources(asked, self.log.entries)
                    entry = execute(run, self.part.methods, self.bench, self.work, sources)
                    self.log.add({**entry, **self._on})
                    with alone(self.work / "claims", "kept sources"):
                        keep(self.work, self.log.file.parent)
                ran = True
                gc.collect()
                left = seconds_left(self._waiting(waiting[place + 1 :]), self.log.entries)
                say(
                    f"{run['stage']}, {duration(left)} left of these: {run['method']} "
                    f"{run['task']} k={run['shots']} seed={run['seed']} "
                    f"rate={run['settings']['rate']:g}: {entry['score']:.3f} in "
                    f"{entry['wall']:.1f} s"
                )
            if not ran:
                time.sleep(_WAIT)

    def _waiting(self, runs: Iterable[Entry]) -> list[Entry]:
        done = {key(entry) for entry in self.log.entries}
        return [run for run in runs if key(run) not in done]


def seconds_left(waiting: list[Entry], entries: list[Entry]) -> float:
    """Of runs like those in the log: of their stage, method and shots, else of their stage."""
    kinds: dict[tuple[str, ...], list[float]] = {}
    for entry in entries:
        if "wall" in entry:
            for kind in _kinds(entry):
                kinds.setdefault(kind, []).append(entry["wall"])
    total = 0.0
    for run in waiting:
        known = next((kinds[kind] for kind in _kinds(run) if kind in kinds), [0.0])
        total += statistics.mean(known)
    return total


def _kinds(entry: Entry) -> list[tuple[str, ...]]:
    part = entry["settings"].get("part", "heads")
    stage, method, shots = (str(entry[name]) for name in ("stage", "method", "shots"))
    return [(part, stage, method, shots), (part, stage, shots), (part, stage)]


def note_machine(log: Log, part: Part, given: argparse.Namespace) -> None:
    """A line that says what the next ones were run on."""
    accelerator = gpu()
    machine = {
        **part.settings,
        "processor": processor(),
        "threads": pin_threads(),
        "packages": versions(PACKAGES),
        "quick": given.quick,
        **({"accelerator": accelerator} if accelerator else {}),
        **({"dtype": given.dtype} if part.name == "words" else {}),
    }
    entry = {"stage": "machine", "settings": machine}
    # Of several processes one writes it.
    with alone(given.work / "claims", "machine"):
        log.refresh()
        if log.find(entry) is None:
            log.add(entry)


_BEGAN = time.perf_counter()


def say(text: str) -> None:
    """A line of progress."""
    print(f"{duration(time.perf_counter() - _BEGAN)}  {text}", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h"
