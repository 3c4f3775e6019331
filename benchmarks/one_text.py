"""One text under many tasks: prompts in front of it, and after it, where it is read once.

KERAS_BACKEND=jax python -m benchmarks.one_text [--quick]
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_mpt
from benchmarks import cases
from benchmarks.cases import Batch, Case
from benchmarks.part import Results, rounds, run_part, say_seconds, sized, written
from benchmarks.timing import paired

TEXTS, AT_ONCE = 4, 32
CASES = tuple(
    Case("Llama", 20, TEXTS * tasks, tokens, tasks=tasks, distinct=tasks)
    for tasks, tokens in ((4, 64), (16, 64), (16, 256))
)
# Two words of one token.
WORDS = [[5], [6]]


def measure(quick: bool) -> Results:
    """All cases on this backend."""
    return {"texts": TEXTS, "rows": [row(sized(case, quick), quick) for case in CASES]}


def row(case: Case, quick: bool) -> Results:
    """One case, timed after its scores were compared."""
    tasks = case.tasks if not quick else 2
    case = dataclasses.replace(case, tasks=tasks, rows=TEXTS * tasks)
    data = asked(case)
    with written(case) as folder:
        theirs, front = cases.open_peft(case, folder).eval(), cases.open_ours(case, folder)
    config = dataclasses.replace(front.config, prompt_position="after")
    after = keras_mpt.prompt_tune(front.backbone, config)
    for variable, value in zip(after.prompt.weights, front.prompt.weights, strict=True):
        variable.assign(value)
    x = {"token_ids": data.ids, "padding_mask": np.ones_like(data.ids), "task_ids": data.task_ids}
    runs: dict[str, Callable[[], np.ndarray]] = {
        "peft": lambda: peft_scores(case, theirs, data),
        "before": lambda: front.score(x, WORDS),
        "after": lambda: after.score(x, WORDS),
    }
    whole = after.score(x, WORDS, use_cache=False)
    difference = {
        "before": apart(runs["before"](), runs["peft"]()), "after": apart(runs["after"](), whole)
    }  # fmt: skip
    seconds = paired(runs, **rounds(quick))
    say_seconds(f"one text, {case.tasks} tasks, {case.name}", seconds)
    keras.utils.clear_session()
    gc.collect()
    return {
        "case": case.name, "tasks": case.tasks, "difference": max(difference.values()),
        "agrees": max(difference.values()) <= cases.TOLERANCE, "seconds": seconds,
    }  # fmt: skip


def asked(case: Case) -> Batch:
    """Each text under each task."""
    texts = cases.batch(case, TEXTS).ids
    ids = np.repeat(texts, case.tasks, axis=0)
    task_ids = np.tile(np.arange(case.tasks, dtype="int32"), TEXTS)
    return Batch(ids, task_ids, ids)


def peft_scores(case: Case, model: Any, data: Batch) -> np.ndarray:
    """PEFT's log-probabilities of the words, at the last position alone, as many rows at once."""
    import torch

    found = []
    for start in range(0, len(data.ids), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        own = Batch(data.ids[part], data.task_ids[part], data.ids[part])
        with torch.no_grad():
            inputs = cases.peft_inputs(case, own, model.device)
            logits = model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
            found.append(torch.log_softmax(logits.float(), -1)[:, np.ravel(WORDS)])
    return torch.cat(found).cpu().numpy()


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, of the largest score."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    sys.exit(run_part(measure))
