"""Runs `benchmarks.beside_peft` on every backend and writes docs/benchmarks/: `make bench`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"
BACKENDS = ("tensorflow", "jax", "torch")
PACKAGES = ("keras", "keras-hub", "tensorflow", "jax", "torch", "peft", "transformers")

HEAD = """\
# Beside PEFT

Made by `make bench` ({module}); do not edit. {machine}, {cores} cores, CPU only, float32, with
{packages}.

Both sides run in one process on the same weights and batches, in turn, {repeats} times after
{warm_ups} warm-ups; PEFT with its default attention (sdpa) and every core. A ratio is PEFT's time
divided by ours, pair by pair: the median, and in brackets the smallest and the largest. Above 1
keras_mpt is faster. Before a case is timed, logits are compared (*difference*, relative to the
largest), and generated tokens must be the same.

Training is one step of Adam on P, the factors and the head, {tasks} tasks in a batch. Generation is
32 new tokens, greedy. Compilation is among the warm-ups.

| case | backend | PEFT | keras_mpt | ratio | difference |
|---|---|---|---|---|---|
"""


def main() -> int:
    """Measures and writes the numbers and the page."""
    results, failed = [], []
    for backend in BACKENDS:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        command = [sys.executable, "-m", "benchmarks.beside_peft"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            failed.append(backend)
        lines = done.stdout.strip().splitlines()
        if lines:
            results.append(json.loads(lines[-1]))
    if not results:
        raise SystemExit(f"no backend could be measured: {failed}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": _processor(),
        "cores": os.cpu_count(),
        "packages": {name: version(name).partition("+")[0] for name in PACKAGES},
        "results": results,
    }
    (FOLDER / "beside_peft.json").write_text(json.dumps(report, indent=1) + "\n")
    (FOLDER / "README.md").write_text(render(report))
    if failed:
        print(f"outputs differ, or a run failed, on: {failed}", file=sys.stderr)
    return 1 if failed else 0


def render(report: dict[str, Any]) -> str:
    """The page, from the numbers."""
    packages = ", ".join(f"{name} {v}" for name, v in report["packages"].items())
    head = HEAD.format(
        **{**report["results"][0], **report, "packages": packages},
        module="`benchmarks/beside_peft.py`",
    )
    rows = []
    for i in range(len(report["results"][0]["rows"])):
        for result in report["results"]:
            row = result["rows"][i]
            low, high = row["spread"]
            seconds = f"{row['peft']:.2f} s | {row['ours']:.2f} s"
            ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"
            cells = [row["case"], result["backend"], seconds, ratio, f"{row['difference']:.0e}"]
            rows.append(f"| {' | '.join(cells)} |")
    return head + "\n".join(rows) + "\n"


def _processor() -> str:
    """The processor's name, where the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
