"""A text answered by a word: one target of each row counts, in a vocabulary of 49,152.

KERAS_BACKEND=jax python -m benchmarks.label_words [--quick]
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import keras
import numpy as np

from benchmarks import cases, steps
from benchmarks.cases import Case
from benchmarks.memory import in_fresh_process
from benchmarks.part import Results, rounds, run_part, say_seconds, sized, written
from benchmarks.timing import paired
from tools.threads import pin_threads

CASE = Case("SmolLM2", 20, 16, 64, one_word=True)
# PEFT's side and ours, by name of what they compute in, and how.
PAIRS = {
    "float32": ("peft", "ours"),
    "bfloat16": ("peft bfloat16", "bfloat16"),
    "float32, half of the blocks again": ("peft", "half remat"),
    "float32, blocks again": ("peft", "remat"),
}


def measure(quick: bool) -> Results:
    """The case in each dtype on this backend."""
    case = sized(CASE, quick)
    with written(case) as folder:
        rows = [row(case, dtype, folder, quick) for dtype in PAIRS]
        rows = [{**r, "bytes": peaks(case, r["dtype"], folder)} for r in rows]
    return {"rows": rows, "threads": pin_threads()}


def peaks(case: Case, dtype: str, folder: Path) -> dict[str, int | None]:
    """Peak memory in fresh processes. PEFT's is the same on all backends."""
    theirs, ours = PAIRS[dtype]
    is_torch = keras.backend.backend() == "torch"
    sides = {"ours": ours, **({"peft": theirs} if is_torch else {})}
    return {name: in_fresh_process(side, case, folder) for name, side in sides.items()}


def row(case: Case, dtype: str, folder: Path, quick: bool) -> Results:
    """One dtype, timed after its outputs were compared."""
    data, (their_side, our_side) = cases.batch(case), PAIRS[dtype]
    theirs = cases.open_peft(case, folder, **cases.PEFT_SIDES[their_side])
    ours = cases.open_ours(case, folder, **cases.SIDES[our_side])
    error = steps.difference(case, ours, theirs, data)
    runs = {
        "peft": steps.peft_step(case, theirs, data),
        "ours": steps.our_step(case, ours, data),
    }
    seconds = paired(runs, **rounds(quick))
    say_seconds(f"label words, {dtype}", seconds)
    del theirs, ours, runs
    keras.utils.clear_session()
    gc.collect()
    # Half precision rounds, each side in its own order.
    agrees = error <= cases.TOLERANCE or dtype == "bfloat16"
    return {
        "case": case.name, "dtype": dtype, "difference": error, "agrees": agrees,
        "seconds": seconds,
    }  # fmt: skip


if __name__ == "__main__":
    np.random.seed(0)
    sys.exit(run_part(measure))
