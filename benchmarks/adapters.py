"""Saving and loading an adapter, in PEFT's layout on either side.

KERAS_BACKEND=jax python -m benchmarks.adapters [--quick]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import peft

import keras_mpt
from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.part import Results, run_part, say_seconds, sized, written
from benchmarks.timing import paired

CASES = (Case("GPT-2", 100, 16, 64), Case("GPT-2", 100, 16, 64, tasks=1000))
# Milliseconds each, so that more of them cost nothing.
REPEATS, WARM_UPS = 15, 3


def measure(quick: bool) -> Results:
    """All cases on this backend."""
    return {"rows": [row(sized(case, quick), quick) for case in CASES]}


def row(case: Case, quick: bool) -> Results:
    """One case, timed after its outputs were compared."""
    with written(case) as folder, tempfile.TemporaryDirectory() as other:
        theirs, ours = cases.open_peft(case, folder), cases.open_ours(case, folder)
        peft_folder, our_folder = f"{other}/peft", Path(other, "ours")
        base = ours.backbone

        def load_into_peft() -> None:
            peft.set_peft_model_state_dict(theirs, peft.load_peft_weights(peft_folder))

        runs = {
            "peft save": lambda: theirs.save_pretrained(peft_folder),
            "ours save": lambda: ours.save_adapter(our_folder, overwrite=True),
            "peft load": load_into_peft,
            "ours load": lambda: ours.load_adapter(our_folder),
        }
        runs["peft save"](), runs["ours save"]()
        # Each opens what the other wrote.
        saved = [keras_mpt.read_state_dict(name) for name in (peft_folder, our_folder)]
        same = saved[0].keys() == saved[1].keys()
        same = same and all(np.array_equal(saved[0][k], saved[1][k]) for k in saved[0])
        assert keras_mpt.load_adapter(base, peft_folder).config.num_tasks == case.tasks
        seconds = paired(runs, 2 if quick else REPEATS, 1 if quick else WARM_UPS)
    say_seconds(f"adapter, T = {case.tasks}", seconds)
    numbers = ours.parameter_count()
    return {
        "tasks": case.tasks, "parameters": numbers, "agrees": bool(same), "seconds": seconds,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_part(measure))
