"""Greedy text: the first token, the rest, and the bare keras-hub model at the same total length.

KERAS_BACKEND=jax python -m benchmarks.generation [--quick]
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import numpy as np

from benchmarks import cases, steps
from benchmarks.cases import Batch, Case
from benchmarks.part import Results, rounds, run_part, say_seconds, sized, written
from benchmarks.timing import paired

NEW = 32
CASES = (Case("GPT-2", 100, 1, 32, distinct=1), Case("GPT-2", 100, 16, 32))


def measure(quick: bool) -> Results:
    """All cases on this backend."""
    new = 4 if quick else NEW
    return {"new": new, "rows": [row(sized(case, quick), new, quick) for case in CASES]}


def row(case: Case, new: int, quick: bool) -> Results:
    """One case, timed after its outputs were compared."""
    data = cases.batch(case)
    with written(case) as folder:
        theirs, ours = cases.open_peft(case, folder), cases.open_ours(case, folder)
    error = steps.difference(case, ours, theirs, data)
    theirs.eval()
    # XLA, as on JAX: it pays by the second call of a size.
    how = {"jit_compile": True} if keras.backend.backend() == "tensorflow" else {}
    ours.compile(sampler="greedy", **how)
    bare = keras_hub.models.GPT2CausalLM(backbone=ours.backbone, preprocessor=None)
    bare.compile(sampler="greedy", **how)
    text = np.random.default_rng(1).integers(5, 100, (case.rows, case.length + case.tokens))

    def runs(count: int) -> dict[str, Callable[[], Any]]:
        return {
            "peft": lambda: peft_tokens(case, theirs, data, count),
            "ours": lambda: our_tokens(ours, data.ids, count, task_ids=data.task_ids),
            "bare": lambda: our_tokens(bare, text.astype("int32"), count),
        }

    whole = runs(new)
    same = float((whole["peft"]() == whole["ours"]()).mean())
    first = {f"{name} first": run for name, run in runs(1).items()}
    # On PyTorch steps are recorded in the first two calls, and checked in the third.
    seconds = paired({**first, **whole}, **rounds(quick, warm_ups=3))
    say_seconds(f"generation {case.name}", seconds)
    keras.utils.clear_session()
    gc.collect()
    agrees = same == 1 and error <= cases.TOLERANCE
    return {
        "case": case.name, "rows": case.rows, "difference": error, "same": same, "agrees": agrees,
        "seconds": seconds,
    }  # fmt: skip


def peft_tokens(case: Case, model: Any, data: Batch, new: int) -> np.ndarray:
    """PEFT's new tokens (B, new), greedily."""
    made = model.generate(
        **cases.peft_inputs(case, data, model.device),
        max_new_tokens=new, min_new_tokens=new, do_sample=False,
    )  # fmt: skip
    return made.cpu().numpy()[:, -new:]


def our_tokens(model: Any, ids: np.ndarray, new: int, **kwargs: Any) -> np.ndarray:
    """Ours, or those of keras-hub's own model."""
    room = np.zeros((len(ids), new), "int32")
    inputs = {
        "token_ids": np.concatenate([ids, room], 1),
        "padding_mask": np.concatenate([np.ones_like(ids), room], 1),
    }
    made = model.generate(inputs, stop_token_ids=None, **kwargs)["token_ids"]
    return np.asarray(made)[:, -new:]


if __name__ == "__main__":
    sys.exit(run_part(measure))
