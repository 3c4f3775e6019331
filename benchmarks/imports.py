"""`import keras_mpt` beside `import keras_hub`, each in a fresh process.

KERAS_BACKEND=jax python -m benchmarks.imports [--quick]
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.part import Results, run_part, say_seconds

REPEATS, WARM_UPS = 5, 1
# What is imported is timed within the process: its start is Python's.
_PROGRAM = """
import time
times = [time.perf_counter()]
for name in {names}:
    __import__(name)
    times.append(time.perf_counter())
print(*[b - a for a, b in zip(times, times[1:])])
"""


def measure(quick: bool) -> Results:
    """Seconds of both, in turn; and of ours where keras_hub is imported already."""
    seconds: dict[str, list[float]] = {"keras_mpt": [], "keras_hub": [], "keras_mpt after": []}
    repeats = 2 if quick else REPEATS
    for i in range(WARM_UPS + repeats):
        programs = [("keras_mpt",), ("keras_hub", "keras_mpt")]
        for names in programs if i % 2 == 0 else programs[::-1]:
            found = _imported(names)
            keys = ("keras_mpt",) if len(names) == 1 else ("keras_hub", "keras_mpt after")
            if i >= WARM_UPS:
                for key, value in zip(keys, found, strict=True):
                    seconds[key].append(round(value, 5))
    say_seconds("import", seconds)
    return {"seconds": seconds}


def _imported(names: tuple[str, ...]) -> list[float]:
    command = [sys.executable, "-c", _PROGRAM.format(names=names)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    sys.exit(run_part(measure))
