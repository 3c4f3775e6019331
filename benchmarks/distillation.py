"""What distillation adds to a step of training: teachers beside the student, or not.

KERAS_BACKEND=jax python -m benchmarks.distillation [--quick]
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import keras
import numpy as np

from benchmarks import cases, steps
from benchmarks.cases import Batch, Case
from benchmarks.part import Results, rounds, run_part, say_seconds, sized, written
from benchmarks.timing import paired

# As many source tasks as the paper has, all of them in a batch.
CASES = [
    Case("GPT-2", 100, 16, 64, tasks=6, distinct=6),
    Case("MiniLM", 20, 32, 48, tasks=6, distinct=6),
    Case("T5", 20, 16, 64, tasks=6, distinct=6),
]


def measure(quick: bool) -> Results:
    """All cases on this backend."""
    return {"rows": [row(sized(case, quick), quick) for case in CASES]}


def row(case: Case, quick: bool) -> Results:
    """One case: the student alone, with teachers, and with their logits alone."""
    import keras_mpt

    data = cases.batch(case)
    with written(case) as folder:
        alone, student, other = (cases.open_ours(case, folder) for _ in range(3))
    whole = _with_teachers(student)
    logits_only = _with_teachers(other, hidden_weight=0.0)
    assert isinstance(whole, keras_mpt.Distillation)
    error = _difference(case, whole, data)
    runs = {
        "alone": steps.our_step(case, alone, data),
        "distilled": steps.our_step(case, whole, data),
        "logits only": steps.our_step(case, logits_only, data),
    }
    seconds = paired(runs, **rounds(quick))
    say_seconds(case.name, seconds)
    keras.utils.clear_session()
    gc.collect()
    return {
        "case": case.name, "difference": error, "agrees": error <= cases.TOLERANCE,
        "seconds": seconds,
    }  # fmt: skip


def _with_teachers(student: Any, **kwargs: Any) -> Any:
    """Each task's own prompt as its teacher; the student starts elsewhere."""
    import keras_mpt

    teachers = {name: student.fold(name) for name in student.config.names}
    cols = student.prompt.prefix_task_cols
    cols.assign(np.ones(cols.shape, "float32"))
    return keras_mpt.Distillation(student, teachers, **kwargs)


def _difference(case: Case, distillation: Any, data: Batch) -> float:
    """Between the teachers' logits in one mixed pass and each teacher's own."""
    inputs, _, _ = distillation.student.prepared(cases.our_inputs(case, data))
    found, _ = distillation.teachers.call_with_states(inputs, ())
    found, worst = keras.ops.convert_to_numpy(found), 0.0
    for k, teacher in enumerate(distillation.teacher_models):
        rows = np.flatnonzero(data.task_ids == k)
        if len(rows) == 0:  # A small batch may not hold every task.
            continue
        own = {name: value[rows] for name, value in inputs.items() if name != "task_ids"}
        expected = np.asarray(teacher.predict_on_batch(own))
        worst = max(worst, float(np.abs(found[rows] - expected).max() / np.abs(expected).max()))
    return worst


if __name__ == "__main__":
    sys.exit(run_part(measure))
