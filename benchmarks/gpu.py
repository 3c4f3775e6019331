"""Training and generation beside PEFT in bfloat16, at sizes that fill a GPU: `benchmarks/gpu.sh`.

    python -m benchmarks.gpu                               # into docs/benchmarks/gpu.json
    python -m benchmarks.gpu --budget 230 --missing        # what is not there, as time allows
    python -m benchmarks.gpu --quick --file /tmp/gpu.json  # does it run at all? Needs no GPU

What matters most comes first. Each case is kept as soon as it was measured, so that a run that is
broken off leaves what it did; what fails is kept as a sentence, and the next case begins. Each
backend has a process of its own. They take turns, for there is one GPU: only models are opened, and
compared with PEFT's, in both at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cases import Case, small
from benchmarks.part import QUIET, Results, said, say
from benchmarks.timing import middle

if TYPE_CHECKING:
    from benchmarks.gpu_models import Models

FILE = Path(__file__).parents[1] / "docs" / "benchmarks" / "gpu.json"
BACKENDS = ("torch", "jax")
_MEDIUM, _LLAMA, _SMOL = "GPT-2 medium", "Llama 1B", "SmolLM2"
TRAINING, GENERATION = "training", "generation"
# In the order of their weight: the budget may end before they do.
JOBS = (
    (TRAINING, Case(_MEDIUM, 100, 64, 64)),
    (TRAINING, Case(_LLAMA, 100, 64, 64)),
    (GENERATION, Case(_MEDIUM, 100, 64, 32)),
    (TRAINING, Case(_SMOL, 100, 64, 64, one_word=True)),
    (GENERATION, Case(_LLAMA, 100, 64, 32)),
    (TRAINING, Case(_MEDIUM, 512, 64, 64)),
    (GENERATION, Case(_MEDIUM, 100, 1, 32, distinct=1)),
    (TRAINING, Case(_LLAMA, 512, 64, 64)),
    (TRAINING, Case(_SMOL, 512, 64, 64, one_word=True)),
    (GENERATION, Case(_LLAMA, 100, 1, 32, distinct=1)),
    (GENERATION, Case(_MEDIUM, 512, 64, 32)),
    (GENERATION, Case(_LLAMA, 512, 64, 32)),
    (GENERATION, Case(_MEDIUM, 512, 1, 32, distinct=1)),
    (GENERATION, Case(_LLAMA, 512, 1, 32, distinct=1)),
    # Should 64 rows under 512 virtual tokens be more than PEFT's side finds room for.
    (TRAINING, Case(_LLAMA, 512, 16, 64)),
)
# A process that has not answered for so long is ended.
LIMIT = 120.0
# What became of opening a shape on a backend.
Opened = dict[tuple[str, str], Results]
_ENVIRONMENT = {
    **QUIET,
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # Half of the process is PyTorch's.
    "HF_HUB_OFFLINE": "1",
}


def main() -> int:
    """Measures as long as the budget lasts, and keeps each result in the file."""
    parser = argparse.ArgumentParser(description="keras_mpt and PEFT side by side on a GPU")
    parser.add_argument("--file", type=Path, default=FILE, help="where the results go")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--kinds", nargs="+", choices=(TRAINING, GENERATION))
    parser.add_argument("--budget", type=float, default=480.0, help="seconds; none begins later")
    parser.add_argument("--missing", action="store_true", help="only what the file has not")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    given = parser.parse_args()
    if given.quick and given.file == FILE:
        parser.error("--quick should go with a --file of its own: its numbers mean nothing")
    os.environ.update({name: os.environ.get(name, v) for name, v in _ENVIRONMENT.items()})
    kept = json.loads(given.file.read_text()) if given.file.exists() else {}
    with tempfile.TemporaryDirectory(dir=_roomy()) as folder:
        return measure(given, kept, Path(folder))


def measure(given: argparse.Namespace, kept: Results, folder: Path) -> int:
    """All jobs on all backends; 1 if one failed, or its outputs were not the same."""
    until = time.perf_counter() + given.budget
    workers = {name: Worker(name, folder, given.quick) for name in given.backends}
    about = {name: worker.answer() for name, worker in workers.items()}
    workers = {name: w for name, w in workers.items() if "failed" not in about[name]}
    for name in set(given.backends) - set(workers):
        say(f"{name} is left out: {about[name]['failed']['all']}")
    if not workers:
        return 1
    say(f"ready: {', '.join(workers)}")
    first = next(about[name] for name in workers)
    of_device = kept.setdefault(first["device"], {"rows": []})
    of_device |= {"packages": first["packages"], "quick": given.quick}
    opened: Opened = {}
    rows = []
    for kind, case in jobs(given.quick):
        if kind not in (given.kinds or (kind,)):
            continue
        wanted = [b for b in workers if not (given.missing and _has(of_device, kind, case, b))]
        closed = [b for b in wanted if (b, case.shape) not in opened]
        if time.perf_counter() < until:
            for backend in closed:
                workers[backend].ask("open", case)
            for backend in closed:
                found = workers[backend].answer()
                opened = _still(opened, workers) | {(backend, case.shape): found}
        for backend in wanted:
            if time.perf_counter() > until:
                break
            began, row = time.perf_counter(), opened[backend, case.shape]
            if "failed" not in row:
                workers[backend].ask(kind, case)
                row = workers[backend].answer()
                opened = _still(opened, workers)
            of_row = {"kind": kind, "case": label(case), "backend": backend}
            rows.append({**of_row, **row, "took": round(time.perf_counter() - began, 1)})
            keep(of_device, rows[-1], given.quick)
            _write(given.file, kept)
            say(_in_words(rows[-1]))
    for worker in workers.values():
        worker.end()
    return 1 if any("failed" in row for row in rows) else 0


def _still(opened: Opened, workers: dict[str, Worker]) -> Opened:
    """What is open yet, or cannot be opened: a process that was started anew has nothing."""
    return {key: v for key, v in opened.items() if "failed" in v or not workers[key[0]].is_new}


def jobs(quick: bool) -> list[tuple[str, Case]]:
    """What is measured, each once; small, some are the same."""
    return list(dict.fromkeys((kind, _tiny(case) if quick else case) for kind, case in JOBS))


def _tiny(case: Case) -> Case:
    """With fewer tasks than rows: there is something to share, as in the real one."""
    return dataclasses.replace(small(case), distinct=min(case.distinct, 2), tasks=2)


def label(case: Case) -> str:
    """A case's name, and what counts in it."""
    return f"{case.name}, one word" if case.one_word else case.name


def keep(of_device: Results, row: Results, quick: bool) -> None:
    """Puts a row in the place of an older one, and says what is missing yet."""
    key = _key(row)
    order = [(kind, label(case), b) for kind, case in jobs(quick) for b in BACKENDS]
    others = [r for r in of_device["rows"] if _key(r) != key and _key(r) in order]
    of_device["rows"] = sorted([*others, row], key=lambda r: order.index(_key(r)))
    done = {_key(r) for r in of_device["rows"]}
    of_device["left_out"] = [list(k) for k in order if k not in done]


def _key(row: Results) -> tuple[str, str, str]:
    return row["kind"], row["case"], row["backend"]


def _has(of_device: Results, kind: str, case: Case, backend: str) -> bool:
    key = kind, label(case), backend
    return any(_key(row) == key and "failed" not in row for row in of_device["rows"])


def _write(file: Path, kept: Results) -> None:
    """Whole or not at all: a run may be broken off at any time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(kept, indent=1) + "\n")
    new.replace(file)


def _in_words(row: Results) -> str:
    found = [f"{name}: {sentence}" for name, sentence in row.get("failed", {}).items()]
    seconds = row.get("seconds", {})
    found += [f"{name} {1000 * middle(values):.1f} ms" for name, values in seconds.items()]
    if {"peft", "ours"} <= set(seconds):
        found.append(f"{middle(seconds['peft']) / middle(seconds['ours']):.2f} times as fast")
    start = f"{row['kind']} {row['case']} on {row['backend']} ({row['took']:.0f} s)"
    return f"{start}: {', '.join(found)}"


def _roomy() -> str | None:
    """A folder in memory, where there is one with room for a model of a billion numbers."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or not os.access(memory, os.W_OK):
        return None
    found = os.statvfs(memory)
    return str(memory) if found.f_bavail * found.f_frsize > 12 * 2**30 else None


class Worker:
    """A backend's process, which is asked for one thing after another.

    Args:
        backend: "torch" or "jax".
        folder: where it may write.
        quick: whether sizes are small.
    """

    def __init__(self, backend: str, folder: Path, quick: bool) -> None:
        self.backend, self.folder, self.quick = backend, folder, quick
        self._start()
        self.is_new = False

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        os.environ["KERAS_BACKEND"] = self.backend  # Of the process that is started.
        given = (other, self.folder / self.backend, self.quick)
        self.process = context.Process(target=_serve, args=given, daemon=True)
        self.process.start()
        del os.environ["KERAS_BACKEND"]
        other.close()
        self.is_new = True

    def ask(self, kind: str, case: Case) -> None:
        """Asks for one thing; nothing waits for it."""
        self.is_new = False
        try:
            self.connection.send((kind, dataclasses.asdict(case)))
        except OSError:  # It ended meanwhile, which `answer` sees.
            return

    def answer(self) -> Results:
        """What came of it. A process that ended, or does not end, is started anew."""
        try:
            if self.connection.poll(LIMIT):
                found = self.connection.recv()
                if found.pop("is_broken", False):
                    self._restart()
                return found
            sentence = f"no answer within {LIMIT:.0f} s"
        except (EOFError, OSError):
            self.process.join(5)
            sentence = f"the process ended with status {self.process.exitcode}"
        self._restart()
        return {"failed": {"all": sentence}}

    def _restart(self) -> None:
        self.end()
        self._start()
        if self.connection.poll(LIMIT):
            self.connection.recv()

    def end(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()


def _serve(connection: Connection, folder: Path, quick: bool) -> None:
    """A backend's process: it opens and measures what it is asked for."""
    try:
        from benchmarks.gpu_models import Models

        models = Models(folder, quick)
        connection.send(models.about())
    except Exception as error:
        connection.send({"failed": {"all": said(error)}})
        raise
    while True:
        kind, case = connection.recv()
        found = _answer(models, kind, Case(**case))
        if "all" in found.get("failed", {}):  # By now nobody holds what the error has left.
            found["is_broken"] = not models.is_sound()
        connection.send(found)


def _answer(models: Models, kind: str, case: Case) -> Results:
    try:
        return models.measured(kind, case)
    except Exception as error:
        return {"failed": {"all": said(error)}}


if __name__ == "__main__":
    sys.exit(main())
