"""Long prompts that rows read where all have them, beside a copy of them for each row.

KERAS_BACKEND=jax python -m benchmarks.prompts_apart [--quick]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from benchmarks import cases
from benchmarks.cases import Batch, Case
from benchmarks.generation import our_tokens
from benchmarks.part import Results, rounds, run_part, say_seconds, sized, written
from benchmarks.timing import paired
from keras_mpt.splicing import apart

CASES = tuple(
    Case("Llama", length, 16, 64, distinct=distinct, depth=2)
    for length in (100, 512, 1024)
    for distinct in (1, 4)
)
NEW, REPEATS = 32, 3


def measure(quick: bool) -> Results:
    """All cases on this backend."""
    new = 4 if quick else NEW
    if keras.backend.backend() == "torch":  # Its threads count as busy while they wait.
        import torch

        torch.set_num_threads(1)
    return {"new": new, "rows": [row(sized(case, quick), new, quick) for case in CASES]}


def row(case: Case, new: int, quick: bool) -> Results:
    """One case: a step of training and text, each both ways, after outputs were compared."""
    data, models = cases.batch(case), {}
    with written(case) as folder:
        for name in ("apart", "copies"):
            with served(name):
                models[name] = cases.open_ours(case, folder)
    x = {"token_ids": data.ids, "padding_mask": np.ones_like(data.ids), "task_ids": data.task_ids}
    found = {}
    for name, model in models.items():
        with served(name):
            found[name] = keras.ops.convert_to_numpy(model(x))
        model.compile(optimizer=keras.optimizers.Adam(0.01), sampler="greedy")
    difference = np.abs(found["apart"] - found["copies"]).max() / np.abs(found["copies"]).max()
    runs: dict[str, Callable[[], Any]] = {}
    for name, model in models.items():
        runs[f"training {name}"] = step(name, model, x, data)
        runs[f"text {name}"] = text(name, model, data, new)
    made = [runs[f"text {name}"]() for name in models]
    # On PyTorch steps are recorded in the first two calls, and checked in the third.
    count = rounds(quick, warm_ups=3)
    count["repeats"] = min(count["repeats"], REPEATS)
    seconds = paired(runs, **count, clock=time.process_time)
    say_seconds(f"prompts apart {case.name}", seconds)
    same = bool((made[0] == made[1]).all())
    return {
        "case": case.name, "prompts": case.distinct, "difference": float(difference),
        "same": same, "agrees": same and bool(difference <= 1e-5), "seconds": seconds,
    }  # fmt: skip


@contextmanager
def served(name: str) -> Iterator[None]:
    """Within it all prompts are read apart, or none; elsewhere the library chooses."""
    chosen = apart.LONG, apart.SAVED
    apart.LONG, apart.SAVED = (1, 0) if name == "apart" else (2**31, 0)
    try:
        yield
    finally:
        apart.LONG, apart.SAVED = chosen


def step(name: str, model: Any, x: Any, data: Batch) -> Callable[[], Any]:
    """A step of training."""

    def run() -> Any:
        with served(name):
            return model.train_on_batch(x, data.labels)

    return run


def text(name: str, model: Any, data: Batch, new: int) -> Callable[[], Any]:
    """New tokens after half of the rows' own."""
    ids = data.ids[:, : data.ids.shape[1] // 2]

    def run() -> Any:
        with served(name):
            return our_tokens(model, ids, new, task_ids=data.task_ids)

    return run


if __name__ == "__main__":
    sys.exit(run_part(measure))
