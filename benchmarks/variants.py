"""The causal step in bfloat16 and with states computed again on the way back; PEFT compiled.

KERAS_BACKEND=jax python -m benchmarks.variants [--quick]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks import cases, steps
from benchmarks.cases import Case
from benchmarks.part import Results, rounds, run_part, said, say, say_seconds, sized, written
from benchmarks.timing import paired

CASE = Case("GPT-2", 100, 16, 64)


def measure(quick: bool) -> Results:
    """The variants that this backend can run, and what was said of the others."""
    case = sized(CASE, quick)
    data = cases.batch(case)
    runs: dict[str, Callable[[], Any]] = {}
    logits, failed = {}, {}
    with written(case) as folder:
        for name, options in cases.SIDES.items():
            try:
                model = cases.open_ours(case, folder, **options)
                logits[name] = steps.our_logits(case, model, data)
                step = steps.our_step(case, model, data)
                step()
                runs[name] = step
            except Exception as error:  # A limit of the backend: the page says so.
                failed[name] = said(error)
        if keras.backend.backend() == "tensorflow":  # JAX always compiles by XLA.
            model = cases.open_ours(case, folder)
            logits["jit_compile"] = steps.our_logits(case, model, data)
            runs["jit_compile"] = steps.our_step(case, model, data, jit_compile=True)
        seconds = paired(runs, **rounds(quick))
        say_seconds("variants", seconds)
        compiled = _peft_compiled(case, folder, quick) if _on_torch() else {}
    largest = np.abs(logits["ours"]).max()
    differences = {
        name: float(np.abs(found - logits["ours"]).max() / largest)
        for name, found in logits.items()
        if name != "ours"
    }
    # Half precision rounds; computing something again does not change it.
    agrees = all(
        error <= cases.TOLERANCE for name, error in differences.items() if name != "bfloat16"
    )
    return {
        "case": case.name, "seconds": seconds, "differences": differences, "failed": failed,
        "agrees": agrees, **compiled,
    }  # fmt: skip


def _on_torch() -> bool:
    return keras.backend.backend() == "torch"  # PEFT is the same on all; once is enough.


def _peft_compiled(case: Case, folder: Path, quick: bool) -> Results:
    """PEFT's step as it is and with `torch.compile`, which needs a C++ compiler."""
    import torch

    say("torch.compile of PEFT's step")
    data = cases.batch(case)
    plain, other = (cases.open_peft(case, folder) for _ in range(2))
    try:
        compiled = torch.compile(other)
        runs = {
            "eager": steps.peft_step(case, plain, data),
            "compiled": steps.peft_step(case, compiled, data),
        }
        runs["compiled"]()
    except Exception as error:
        return {"torch.compile": {"failed": said(error)}}
    seconds = paired(runs, **rounds(quick))
    say_seconds("PEFT", seconds)
    return {"torch.compile": {"seconds": seconds}}


if __name__ == "__main__":
    sys.exit(run_part(measure))
