"""Runs every part on every backend and writes docs/benchmarks/: `make bench`.

    python -m benchmarks                                    # all of it
    python -m benchmarks --parts training --backends jax    # some anew, the rest as it was
    python -m benchmarks --render                           # page and charts from the numbers
    python -m benchmarks --quick --folder /tmp/bench        # does it run at all?

The exit status says whether outputs agreed wherever they were compared, and whether they could be,
never how fast anything was.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.chart import draw
from benchmarks.page import render
from benchmarks.part import QUIET, agrees, say
from tools.backends import NAMES
from tools.machine import kind_of_processor, versions
from tools.threads import pin_threads

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
PROCESSORS, PAGE = "processors", "README.md"  # A file for each kind of processor.
GPUS = "gpu.json"  # Of `benchmarks/gpu.sh`.
BACKENDS = tuple(NAMES)
PARTS = (
    "training", "long_prompts", "label_words", "lengths", "distillation", "generation",
    "prompts_apart", "one_text", "bank", "tasks", "memory", "variants", "adapters", "imports",
)  # fmt: skip
PACKAGES = (
    "keras", "keras-hub", "tensorflow", "jax", "torch", "peft", "transformers", "numpy",
)  # fmt: skip


def main() -> int:
    """Measures what is asked for, and writes the numbers, the page and the charts."""
    parser = argparse.ArgumentParser(description="keras_mpt and PEFT side by side")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    given = parser.parse_args()
    if given.quick and given.folder == FOLDER and not given.render:
        parser.error("--quick should go with a --folder of its own: its numbers mean nothing")
    (given.folder / PROCESSORS).mkdir(parents=True, exist_ok=True)
    failed = [] if given.render else _measure(_file(given.folder), given)
    reports = known(given.folder)
    (given.folder / PAGE).write_text(render(reports, _read(given.folder / GPUS)))
    draw(reports, given.folder)
    if failed:
        say(f"outputs differ, or the part did not end, in: {', '.join(failed)}")
    return 1 if failed else 0


def known(folder: Path) -> list[dict[str, Any]]:
    """What each kind of processor measured."""
    return [_read(file) for file in sorted((folder / PROCESSORS).glob("*.json"))]


def _file(folder: Path) -> Path:
    """Where the numbers of this machine's kind of processor are."""
    name = re.sub(r"[^a-z0-9]+", "-", kind_of_processor().lower()).strip("-")
    return folder / PROCESSORS / f"{name}.json"


def _measure(file: Path, given: argparse.Namespace) -> list[str]:
    """Fills a processor's report, part by part, and saves it after each. Returns what failed."""
    report = {"results": {}} | _read(file)
    report |= {
        "machine": kind_of_processor(),
        "threads": pin_threads(),
        "packages": versions(PACKAGES),
        "quick": given.quick,
    }
    failed = []
    for part in given.parts:
        for backend in given.backends:
            say(f"{part} on {backend}")
            found = _run(part, backend, given.quick)
            if found is None or not agrees(found):
                failed.append(f"{part} on {backend}")
            if found is not None:
                report["results"].setdefault(part, {})[backend] = found
            file.write_text(json.dumps(report, indent=1) + "\n")
    return failed


def _run(part: str, backend: str, quick: bool) -> dict[str, Any] | None:
    """A part's results, from a process of its own: Keras fixes its backend at import."""
    environment = {**QUIET, **os.environ, "KERAS_BACKEND": backend}
    command = [sys.executable, "-m", f"benchmarks.{part}", *(["--quick"] if quick else [])]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        return None


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}
