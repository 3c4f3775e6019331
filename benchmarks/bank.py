"""Many adapters in one bank: a batch of as many of them as it has rows, and what they take.

KERAS_BACKEND=jax python -m benchmarks.bank [--quick]
"""

from __future__ import annotations

import dataclasses
import gc
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_mpt
from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.part import Results, rounds, run_part, say, say_seconds, sized, written
from benchmarks.timing import paired

# An encoder with a head per adapter, and a language model whose rows are scored.
CASES = (Case("MiniLM", 20, 32, 48, tasks=1), Case("GPT-2", 100, 16, 64, tasks=1))
ADAPTERS = (1, 100, 1_000)
WORDS = [[7], [8, 9], [10]]


def measure(quick: bool) -> Results:
    """All cases with all numbers of adapters on this backend."""
    counts = (1, 5) if quick else ADAPTERS
    rows = []
    for case in CASES:
        case = sized(case, quick)
        with written(case) as folder, tempfile.TemporaryDirectory() as adapters:
            backbone = cases.open_backbone(case, folder)
            model = own_model(case, backbone)
            write(model, Path(adapters), max(counts))
            for count in counts:
                rows.append(row(case, backbone, model, Path(adapters), count, quick))
        keras.utils.clear_session()
        gc.collect()
    return {"rows": rows}


def own_model(case: Case, backbone: Any) -> Any:
    """One adapter's own model."""
    kwargs: dict[str, Any] = {"num_classes": 4} if case.shape == "MiniLM" else {}
    if case.shape == "MiniLM":
        kwargs["head_config"] = {"dropout": 0.0}
    config = keras_mpt.PromptTuningConfig(task_type=case.task_type, num_virtual_tokens=case.length)
    return keras_mpt.prompt_tune(backbone, config, **kwargs)


def write(model: Any, folder: Path, count: int) -> None:
    """Adapters of random numbers, "0", "1", …"""
    began = time.perf_counter()
    for i in range(count):
        rng = np.random.default_rng(i)
        for variable in model.trainable_variables:
            variable.assign(rng.normal(0, 0.3, variable.shape))
        model.save_adapter(folder / str(i))
    say(f"{count} adapters written in {time.perf_counter() - began:.0f} s")


def row(case: Case, backbone: Any, model: Any, adapters: Path, count: int, quick: bool) -> Results:
    """One number of adapters, timed after outputs were compared."""
    data = cases.batch(dataclasses.replace(case, tasks=1))
    x = {k: v for k, v in cases.our_inputs(case, data).items() if k != "task_ids"}
    bank = keras_mpt.PromptBank(backbone, num_virtual_tokens=case.length)
    began = time.perf_counter()
    for i in range(count):
        bank.load(str(i), adapters / str(i))
    load = (time.perf_counter() - began) / count
    rng = np.random.default_rng(0)
    order = [str(i) for i in rng.permutation(max(count, 2 * case.rows)) % count]
    parts = [order[i : i + case.rows] for i in range(0, len(order) - case.rows + 1, case.rows)]
    batches, others = itertools.cycle(parts[:2]), iter(parts[2:])
    error = difference(case, bank, model, adapters, x, next(batches))
    ask(case, bank, {**x, "adapter": next(batches)})  # Keys and values of both are kept now.
    again = itertools.count()

    def cold() -> None:
        name = str(next(again) % count)
        bank.drop(name)
        bank.load(name, adapters / name)
        ask(case, bank, {**x, "adapter": name})

    one = {name: value[:1] for name, value in x.items()}
    runs: dict[str, Callable[[], Any]] = {
        "bank": lambda: ask(case, bank, {**x, "adapter": next(batches)}),
        "alone": lambda: ask(case, model, x),
        "apart": lambda: [ask(case, model, one) for _ in range(min(count, case.rows))],
        "cold": cold,
    }
    if count == 1:  # One model is all that there is.
        del runs["apart"]
    if case.is_causal and len(parts) > sum(rounds(quick).values()) + 2:
        runs["fresh"] = lambda: ask(case, bank, {**x, "adapter": next(others)})
    seconds = paired(runs, **rounds(quick))
    say_seconds(f"{case.shape}, {count} adapters", seconds)
    return {
        "case": case.name, "adapters": count, "difference": error, "load": load,
        "agrees": error <= cases.TOLERANCE, "bytes": bank.nbytes, "seconds": seconds,
    }  # fmt: skip


def ask(case: Case, of: Any, x: dict[str, Any]) -> Any:
    """Logits of a classifier; of a language model how likely it finds three words."""
    if case.is_causal:
        return of.score(x, WORDS)
    return of.predict(x, batch_size=case.rows, verbose=0)


def difference(
    case: Case, bank: Any, model: Any, adapters: Path, x: dict[str, Any], names: list[str]
) -> float:
    """The largest of some rows' outputs from those of their own models, beside the largest."""
    found, error, largest = ask(case, bank, {**x, "adapter": names}), 0.0, 0.0
    for i, name in list(enumerate(names))[:4]:
        model.load_adapter(adapters / name)
        own = ask(case, model, {k: v[i : i + 1] for k, v in x.items()})[0]
        error = max(error, float(np.abs(found[i] - own).max()))
        largest = max(largest, float(np.abs(own).max()))
    return error / largest


if __name__ == "__main__":
    sys.exit(run_part(measure))
