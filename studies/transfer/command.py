"""The command line: `python -m studies.transfer`.

python -m studies.transfer                       # all of it: hours; goes on where it stopped
python -m studies.transfer --quick               # small, in ten minutes; a folder of its own
python -m studies.transfer --long                # more steps and rows: a day; likewise
python -m studies.transfer --stages targets --targets cr --shots 16 --methods prompt mpt
python -m studies.transfer --render              # page and chart from the log alone
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from studies.transfer import data, plan
from studies.transfer.execute import execute
from studies.transfer.log import Entry, Log, key
from studies.transfer.methods import METHODS
from studies.transfer.render import refresh, write
from studies.transfer.summary import check_one_budget
from studies.transfer.workbench import Workbench
from tools.machine import processor, versions
from tools.threads import pin_threads

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "studies" / "transfer"
# Not in the repository: trained sources and teachers, and quick runs.
OUTPUT = ROOT / "studies" / "transfer" / "output"
RUNS = "runs.jsonl"
PACKAGES = ("keras", "keras-hub", "torch", "peft", "transformers", "numpy")


def main(arguments: list[str] | None = None) -> int:
    """Runs what is asked for and not yet in the log, then writes the page and the chart."""
    given = parse(arguments)
    log = Log(given.folder / RUNS)
    if not given.render:
        _run_stages(given, log)
    if given.render or "render" in given.stages:
        write(log.entries, given.folder)
        if given.folder == FOLDER:
            refresh(ROOT / "README.md", log.entries)
        _say(f"written: {given.folder / 'README.md'}")
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the defaults of a quick run or of a whole one."""
    parser = argparse.ArgumentParser(description="What transfer brings, on real tasks")
    parser.add_argument("--quick", action="store_true", help="small, only to see it run")
    parser.add_argument("--long", action="store_true", help="more steps and rows everywhere")
    parser.add_argument("--render", action="store_true", help="run nothing")
    parser.add_argument("--stages", nargs="+", choices=plan.STAGES)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--targets", nargs="+", choices=data.TARGETS)
    parser.add_argument("--shots", nargs="+", type=_shots, metavar="K", help="numbers, or full")
    parser.add_argument("--seeds", type=int, help="of few-shot runs")
    parser.add_argument("--full-seeds", type=int, default=1, help="of runs on all rows")
    parser.add_argument("--source-seeds", type=int, help="of source training")
    parser.add_argument("--test-rows", type=int, help="at most so many test rows of a task")
    parser.add_argument("--virtual-tokens", type=int, default=16)
    parser.add_argument("--data", type=Path, help=f"the tasks; else {data.VARIABLE}")
    parser.add_argument("--folder", type=Path, help="where the log and the page go")
    parser.add_argument("--work", type=Path, default=OUTPUT / "work", help="trained sources")
    given = parser.parse_args(arguments)
    sizes = {
        "stages": ["sources", "targets", "render"] if given.quick else list(plan.STAGES),
        "targets": ["cr", "snips"] if given.quick else list(data.TARGETS),
        "shots": [16] if given.quick else [4, 16, 32, plan.FULL],
        "seeds": 2 if given.quick else 5,
        "source_seeds": 1 if given.quick else 3,
        "test_rows": 100 if given.quick else 500 if given.long else 300,
        "folder": OUTPUT / "quick" if given.quick else OUTPUT / "long" if given.long else FOLDER,
    }
    for name, value in sizes.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    if given.quick and given.folder == FOLDER:
        parser.error("--quick should go with a --folder of its own: its numbers mean nothing")
    return given


def _budget(given: argparse.Namespace) -> plan.Budget:
    if given.quick:
        return plan.QUICK
    return plan.LONG if given.long else plan.Budget()


def _shots(text: str) -> int | str:
    return plan.FULL if text == plan.FULL else int(text)


def _run_stages(given: argparse.Namespace, log: Log) -> None:
    methods = []
    for name in given.methods:
        missing = METHODS[name].missing()
        if missing:
            _say(f"{name} is left out: it needs {missing}")
        else:
            methods.append(METHODS[name])
    bench = Workbench(data.find_data(given.data), given.test_rows, given.virtual_tokens)
    settings = {
        "virtual_tokens": given.virtual_tokens,
        "batch": bench.batch_size,
        "test_rows": given.test_rows,
    }
    asked = plan.Asked(
        _budget(given), methods, given.targets, given.shots,
        given.seeds, given.full_seeds, given.source_seeds, settings,
    )  # fmt: skip
    data.check_tasks(bench.folder, [*asked.budget.sources, *asked.targets])
    try:
        check_one_budget([*log.entries, *plan.target_runs(asked, log.entries)])
    except ValueError as error:
        sys.exit(str(error))
    _note_machine(log, given.quick)
    sources = plan.possible_sources(asked)
    # Each stage's runs follow from what the one before it logged.
    stages: dict[str, list[Callable[[], Iterable[Entry]]]] = {
        "tune": [
            lambda: plan.tuning_runs(asked),
            lambda: plan.choosing_runs(asked, log.entries),
        ],
        "sources": [lambda: plan.source_runs(asked, log.entries)],
        "targets": [lambda: plan.target_runs(asked, log.entries)],
    }
    for stage, parts in stages.items():
        for runs in parts if stage in given.stages else []:
            _run_all(list(runs()), log, lambda run: execute(run, bench, given.work, sources))


def _run_all(wanted: list[Entry], log: Log, run_one: Callable[[Entry], Entry]) -> None:
    """The runs that are not in the log yet, with an estimate of the time that is left."""
    done = {key(entry) for entry in log.entries}
    waiting = [run for run in wanted if key(run) not in done]
    if wanted:
        _say(f"{wanted[0]['stage']}: {len(wanted)} runs, {len(waiting)} of them not in the log")
    threads = pin_threads()
    for i, run in enumerate(waiting):
        entry = {**run_one(run), "threads": threads}
        log.add(entry)
        gc.collect()
        left = _duration(seconds_left(waiting[i + 1 :], log.entries))
        _say(
            f"{run['stage']} {i + 1}/{len(waiting)}, {left} left: {run['method']} {run['task']} "
            f"k={run['shots']} seed={run['seed']} rate={run['settings']['rate']:g}: "
            f"{entry['score']:.3f} in {entry['wall']:.1f} s"
        )


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
    stage, method, shots = (str(entry[name]) for name in ("stage", "method", "shots"))
    return [(stage, method, shots), (stage, shots), (stage,)]


def _note_machine(log: Log, quick: bool) -> None:
    machine = {
        "processor": processor(),
        "threads": pin_threads(),
        "packages": versions(PACKAGES),
        "quick": quick,
    }
    entry = {"stage": "machine", "settings": machine}
    if log.find(entry) is None:
        log.add(entry)


_BEGAN = time.perf_counter()


def _say(text: str) -> None:
    print(f"{_duration(time.perf_counter() - _BEGAN)}  {text}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h"
