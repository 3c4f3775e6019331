"""What a step costs against the number of tasks, beside Adam on such factors and nothing else.

KERAS_BACKEND=jax python -m benchmarks.tasks [--quick]
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

import keras_mpt
from benchmarks import cases, steps
from benchmarks.cases import Case
from benchmarks.part import Results, rounds, run_part, say_seconds, sized, written
from benchmarks.timing import paired

TASKS = (1, 10, 100, 1_000, 10_000, 100_000)
# A batch holds four of them, however many there are.
CASE = Case("GPT-2", 20, 8, 64)


def all_cases(quick: bool) -> list[Case]:
    """A case per number of tasks."""
    counts = TASKS[:2] if quick else TASKS
    return [dataclasses.replace(sized(CASE, quick), tasks=count) for count in counts]


def measure(quick: bool) -> Results:
    """All numbers of tasks on this backend."""
    return {"rows": [row(case, quick) for case in all_cases(quick)]}


def row(case: Case, quick: bool) -> Results:
    """One case, timed after its outputs were compared."""
    data = cases.batch(case)
    with written(case) as folder:
        theirs, ours = cases.open_peft(case, folder), cases.open_ours(case, folder)
        sparse = keras_mpt.SparseTraining(cases.open_ours(case, folder), case.rows)
    error = steps.difference(case, ours, theirs, data)
    runs = {
        "peft": steps.peft_step(case, theirs, data),
        "ours": steps.our_step(case, ours, data),
        "sparse": steps.our_step(case, sparse, data),
        "adam": AdamAlone([tuple(v.shape) for v in ours.trainable_variables]),
    }
    seconds = paired(runs, **rounds(quick))
    say_seconds(f"T = {case.tasks}", seconds)
    numbers = ours.parameter_count()
    keras.utils.clear_session()
    gc.collect()
    return {
        "tasks": case.tasks, "parameters": numbers, "difference": error,
        "agrees": error <= cases.TOLERANCE, "seconds": seconds,
    }  # fmt: skip


class AdamAlone:
    """The optimizer's own arithmetic: an update of variables of these shapes, gradients given.

    Compiled, and with the old values' memory used anew, as Keras does in a step.

    Args:
        shapes: of the variables. They start at one, and their gradients are constant.
    """

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        variables = [keras.Variable(ops.ones(s), name=f"v{i}") for i, s in enumerate(shapes)]
        gradients = [ops.full(shape, 1e-3) for shape in shapes]
        optimizer = keras.optimizers.Adam(steps.RATE)
        optimizer.build(variables)
        self._values: list[Any] = variables
        run = {"jax": self._on_jax, "tensorflow": _on_tensorflow, "torch": _on_torch}
        self._update = run[keras.backend.backend()](optimizer, gradients, variables)

    def __call__(self) -> None:
        self._update()

    def values(self) -> list[Any]:
        """The variables as NumPy arrays."""
        return [ops.convert_to_numpy(v) for v in self._values]

    def _on_jax(self, optimizer: Any, gradients: Any, variables: Any) -> Callable[[], None]:
        import jax

        def apply(values: Any, state: Any, gradients: Any) -> Any:
            return optimizer.stateless_apply(state, gradients, values)

        compiled = jax.jit(apply, donate_argnums=(0, 1))
        # Copies: what is given away is of no more use to the variables.
        state = [[ops.copy(v.value) for v in group] for group in (variables, optimizer.variables)]

        def update() -> None:
            state[:] = compiled(*state, gradients)
            jax.block_until_ready(state)
            self._values = state[0]

        return update


def _on_tensorflow(optimizer: Any, gradients: Any, variables: Any) -> Callable[[], None]:
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def update() -> None:
        optimizer.apply(gradients, variables)

    return update


def _on_torch(optimizer: Any, gradients: Any, variables: Any) -> Callable[[], None]:
    import torch

    def update() -> None:
        with torch.no_grad():
            optimizer.apply(gradients, variables)

    return update


if __name__ == "__main__":
    sys.exit(run_part(measure))
