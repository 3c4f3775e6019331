"""What every part of the suite does on its command line: measure one backend, print JSON."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import cases
from benchmarks.timing import REPEATS, WARM_UPS, middle

_BEGAN = time.perf_counter()
Results = dict[str, Any]
# Notices and progress bars of others would hide our own progress.
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
}


@contextmanager
def written(case: cases.Case) -> Iterator[Path]:
    """A folder with the case's base and adapter, as long as it is used."""
    with tempfile.TemporaryDirectory() as name:
        cases.write(case, Path(name))
        yield Path(name)


def rounds(quick: bool, repeats: int = REPEATS, warm_ups: int = WARM_UPS) -> dict[str, int]:
    """How often everything is run; `BENCH_REPEATS` in the environment says otherwise."""
    if quick:
        return {"repeats": 2, "warm_ups": 1}
    return {"repeats": int(os.environ.get("BENCH_REPEATS", repeats)), "warm_ups": warm_ups}


def sized(case: cases.Case, quick: bool) -> cases.Case:
    """The case, or a small one of its kind."""
    return cases.small(case) if quick else case


def say(text: str) -> None:
    """A line of progress on stderr."""
    backend = os.environ.get("KERAS_BACKEND", "")
    took = time.perf_counter() - _BEGAN
    print(f"{took:6.0f} s  {backend:10}  {text}", file=sys.stderr, flush=True)


def say_seconds(name: str, seconds: dict[str, list[float]]) -> None:
    """The medians, as progress."""
    shown = ", ".join(f"{key} {1000 * middle(values):.0f}" for key, values in seconds.items())
    say(f"{name}: {shown} ms")


def said(error: Exception) -> str:
    """An error in a line."""
    lines = [line for line in str(error).splitlines() if line and "Exception enc" not in line]
    plain = re.sub(r"\x1b\[\d+m", "", lines[0] if lines else "")
    return f"{type(error).__name__}: {plain[:160]}"


def run_part(measure: Callable[[bool], Results]) -> int:
    """Measures and prints the results as one line; 1 where outputs were not the same.

    Args:
        measure: function of `quick`, that gives the part's results; `agrees` in them, or in one of
            their `rows`, says whether outputs were the same.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, few repeats")
    quick = parser.parse_args().quick
    results = measure(quick)
    print(json.dumps(results))
    return 0 if agrees(results) else 1


def agrees(results: Results) -> bool:
    """Whether both sides gave the same outputs, wherever they were compared."""
    return all(row.get("agrees", True) for row in [results, *results.get("rows", [])])
