"""A step of training, beside PEFT and beside the bare backbone; compilations in an epoch.

KERAS_BACKEND=jax python -m benchmarks.training [--quick]
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from benchmarks import cases, steps
from benchmarks.cases import Case
from benchmarks.floor import bare_step
from benchmarks.part import Results, rounds, run_part, say, say_seconds, sized, written
from benchmarks.timing import paired

CASES = (
    Case("GPT-2", 20, 16, 64),
    Case("GPT-2", 100, 16, 64),
    Case("GPT-2", 100, 64, 64),
    Case("Llama", 100, 16, 64),
    Case("MiniLM", 20, 32, 48),
    Case("T5", 100, 16, 64),
)
EPOCH_STEPS = 3


def measure(quick: bool) -> Results:
    """All cases on this backend."""
    # Small, some of the cases are the same.
    rows = [row(case, quick) for case in dict.fromkeys(sized(case, quick) for case in CASES)]
    return {"rows": rows, "compilations": compilations(sized(CASES[0], quick))}


def row(case: Case, quick: bool) -> Results:
    """One case, timed after its outputs were compared."""
    data = cases.batch(case)
    with written(case) as folder:
        theirs, ours = cases.open_peft(case, folder), cases.open_ours(case, folder)
    error = steps.difference(case, ours, theirs, data)
    runs: dict[str, Callable[[], Any]] = {
        "peft": steps.peft_step(case, theirs, data),
        "ours": steps.our_step(case, ours, data),
        "floor": bare_step(ours.backbone, case.rows, case.tokens),
    }
    if case.is_causal:  # Elsewhere a prompt's states depend on the row.
        runs["prompts"] = bare_step(ours.backbone, case.distinct, case.length)
        runs["head"] = bare_step(ours.backbone, case.rows, case.tokens, ours.head)
    seconds = paired(runs, **rounds(quick))
    say_seconds(f"training {case.name}", seconds)
    attention = theirs.config._attn_implementation
    keras.utils.clear_session()
    gc.collect()
    return {
        "case": case.name, "difference": error, "agrees": error <= cases.TOLERANCE,
        "attention": attention, "seconds": seconds,
    }  # fmt: skip


def compilations(case: Case) -> int | None:
    """How often the training step is compiled in an epoch of whole batches; `None` if never."""
    data = cases.batch(case, rows=EPOCH_STEPS * case.rows)
    with written(case) as folder:
        model = cases.open_ours(case, folder)
    model.compile(optimizer=keras.optimizers.Adam(steps.RATE))
    traced, own_step = [], model.train_step

    def noted(*args: Any) -> Any:
        traced.append(1)
        return own_step(*args)

    if keras.backend.backend() == "tensorflow":
        model.train_step = noted  # A compiled step runs it only when it is traced.
    with _compiled_by_jax() as names:
        inputs = cases.our_inputs(case, data)
        model.fit(inputs, data.labels, batch_size=case.rows, epochs=1, verbose=0)
    counts = {"tensorflow": len(traced), "jax": sum("train_step" in name for name in names)}
    count = counts.get(keras.backend.backend())
    say(f"compilations in an epoch of {EPOCH_STEPS} steps: {count}")
    return count


@contextmanager
def _compiled_by_jax() -> Iterator[list[str]]:
    """What JAX says of each program that it compiles."""
    names: list[str] = []
    if keras.backend.backend() != "jax":
        yield names
        return
    import jax

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Compiling "):
                names.append(record.getMessage().split(" with ")[0])

    logger, handler = logging.getLogger("jax"), Handler()
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        with jax.log_compiles():
            yield names
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


if __name__ == "__main__":
    np.random.seed(0)
    sys.exit(run_part(measure))
