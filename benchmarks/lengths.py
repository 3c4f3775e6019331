"""An epoch of rows as long as those of three corpora, with and without `bucket_by_length`.

KERAS_BACKEND=jax python -m benchmarks.lengths [--quick]
"""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
import numpy as np

import keras_mpt
from benchmarks import cases, steps
from benchmarks.cases import Case
from benchmarks.part import Results, rounds, run_part, say, say_seconds, sized, written
from benchmarks.timing import paired
from keras_mpt.fitting.preparation import preparation_of

CASE = Case("MiniLM", 20, 16, 128, tasks=3, distinct=3, depth=2)
STEPS, REPEATS = 16, 3
# Tokens of BERT's vocabulary in 5,000 training rows of each, special ones too and 128 at most:
# from the shortest row to the longest, by twentieths.
LENGTHS = {
    "SST-2": (4, 9, 11, 13, 15, 16, 18, 19, 21, 22, 24, 25, 27, 28, 30, 32, 34, 37, 40, 45, 66),
    "MNLI": (6, 16, 19, 22, 24, 26, 29, 31, 33, 35, 37, 40, 42, 45, 47, 50, 54, 58, 64, 73, 128),
    "TREC": (5, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 16, 17, 18, 19, 22, 41),
}


def measure(quick: bool) -> Results:
    """The case on this backend."""
    case = sized(CASE, quick)
    with written(case) as folder:
        model = cases.open_ours(case, folder)
    return {"rows": [row(case, model, quick)]}


def row(case: Case, model: Any, quick: bool) -> Results:
    """Epochs of the same rows in both orders, after their losses were compared."""
    count = 4 if quick else STEPS
    data = datasets(case, count)
    mixes = {
        name: keras_mpt.TaskMix(data, case.rows, steps=count, bucket_by_length=name == "bucketed")
        for name in ("plain", "bucketed")
    }
    model.compile(optimizer=keras.optimizers.Adam(steps.RATE))
    first, runs = {}, {}
    for name, mix in mixes.items():

        def epoch(mix: Any = mix) -> None:
            mix.start_at(0)
            model.fit(mix, verbose=0)

        began = time.perf_counter()
        epoch()
        first[name] = round(time.perf_counter() - began, 3)
        say(f"lengths, {name}, first epoch: {first[name]:.0f} s")
        runs[name] = epoch
    seconds = paired(runs, **rounds(quick, REPEATS, warm_ups=0))
    say_seconds(f"lengths {case.name}", seconds)
    error = difference(model, data, case)
    columns = {name: computed(model, mix) for name, mix in mixes.items()}
    used = sum(int(x["padding_mask"].sum()) for x, _ in epoch_of(mixes["plain"]))
    return {
        "case": case.name, "steps": count, "difference": error, "agrees": error <= 1e-5,
        "seconds": seconds, "first": first, "columns": columns, "used": used,
    }  # fmt: skip


def datasets(case: Case, count: int) -> dict[str, Any]:
    """Random tokens of each corpus, as many rows as an epoch needs."""
    rng = np.random.default_rng(0)
    found, rows = {}, -(-count * case.rows // len(LENGTHS))
    for name, lengths in LENGTHS.items():
        drawn = np.interp(rng.uniform(0, 20, rows), np.arange(21), lengths).round()
        width = case.tokens
        sizes = np.maximum(drawn * width // CASE.tokens, 1)
        mask = (np.arange(width) < sizes[:, None]).astype("int32")
        ids = rng.integers(5, 100, mask.shape).astype("int32") * mask
        x = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
        found[name] = (x, rng.integers(0, 2, rows))
    return found


def epoch_of(mix: Any) -> list[Any]:
    """The batches of a mix's first epoch."""
    mix.start_at(0)
    return [mix[i] for i in range(mix.steps)]


def computed(model: Any, mix: Any) -> int:
    """How many of the user's positions the steps of an epoch compute, padding among them."""
    mix.start_at(0)
    stream, _, _ = preparation_of(model)(mix)
    stream[0]  # On TensorFlow the first one is made for Keras to look at.
    return sum(stream[i][0]["token_ids"].size for i in range(mix.steps))


def difference(model: Any, data: dict[str, Any], case: Case) -> float:
    """Of the loss over the same rows, in both orders, relative to it."""
    mixes = [keras_mpt.TaskMix(data, case.rows, steps=2, bucket_by_length=b) for b in (False, True)]
    plain, bucketed = (model.evaluate(mix, verbose=0, return_dict=True)["loss"] for mix in mixes)
    return abs(bucketed - plain) / plain


if __name__ == "__main__":
    np.random.seed(0)
    sys.exit(run_part(measure))
