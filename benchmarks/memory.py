"""Peak memory of a few steps of training, each model in a fresh process.

    KERAS_BACKEND=jax python -m benchmarks.memory [--quick]

A process imports its frameworks, opens the model and makes the batch. From then on the memory that
it holds is compared: the highest in three steps, less what it held before the first. So the
optimizer's state, gradients, activations and what compiling takes are in it, the weights are not.
PEFT's side holds no Keras and ours no PyTorch (but on that backend).
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import cases, steps
from benchmarks.cases import Case
from benchmarks.part import Results, run_part, say, sized, written

STEPS = 3
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measure(quick: bool) -> Results:
    """All cases of training and all numbers of tasks. PEFT is measured on the torch backend's turn:
    it is the same on all."""
    import keras

    from benchmarks.tasks import all_cases
    from benchmarks.training import CASES
    from benchmarks.variants import CASE

    with_peft = ("peft",) if keras.backend.backend() == "torch" else ()
    jobs = [(sized(case, quick), ("ours", *with_peft), False) for case in CASES]
    jobs += [(case, ("ours", *with_peft), True) for case in all_cases(quick)]
    jobs += [(sized(CASE, quick), cases.VARIANTS, False)]
    rows = []
    for case, sides, is_sweep in dict.fromkeys(jobs):  # Small, some are the same.
        with written(case) as folder:
            found = {side: in_fresh_process(side, case, folder) for side in sides}
        name = f"T {case.tasks}" if is_sweep else case.name
        found = {side: count for side, count in found.items() if count is not None}
        say(f"memory {name}: " + ", ".join(f"{k} {v / 2**20:.0f} MiB" for k, v in found.items()))
        rows.append({"case": name, "bytes": found})
    return {"rows": rows}


def in_fresh_process(side: str, case: Case, folder: Path) -> int | None:
    """Bytes of one model's steps; `None` where the backend cannot run it, as `variants` says."""
    description = json.dumps(dataclasses.asdict(case))
    command = [sys.executable, "-m", "benchmarks.memory", "--child", side, str(folder), description]
    pipe = subprocess.PIPE
    done = subprocess.run(command, stdout=pipe, stderr=pipe, text=True)
    if done.returncode == 0:
        return int(done.stdout.split()[-1])
    if side not in cases.VARIANTS:
        raise RuntimeError(f"{side} of {case.name} failed:\n{done.stderr}")
    return None


def _child(side: str, folder: str, description: str) -> None:
    case = Case(**json.loads(description))
    data = cases.batch(case)
    if side in cases.PEFT_SIDES:
        model = cases.open_peft(case, Path(folder), **cases.PEFT_SIDES[side])
    else:
        model = cases.open_ours(case, Path(folder), **cases.SIDES[side])
    make = steps.peft_step if side in cases.PEFT_SIDES else steps.our_step
    before = _reset_peak()
    step = make(case, model, data)
    for _ in range(STEPS):
        step()
    print(_peak() - before)


def _reset_peak() -> int:
    """Bytes held now, from which the peak is counted anew where the system can.

    Else it goes on from the highest so far, which loading may have reached.
    """
    try:
        RESET.write_text("5")
        return _status("VmRSS")
    except OSError:
        return _peak()


def _peak() -> int:
    try:
        return _status("VmHWM")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    if "--child" in sys.argv:
        np.random.seed(0)
        _child(*sys.argv[2:])
    else:
        sys.exit(run_part(measure))
