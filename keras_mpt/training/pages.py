"""The factors of a batch's tasks out of the tables of all tasks, with what an optimizer keeps."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.prompts.combine import combine, gather_factors
from keras_mpt.prompts.multitask_prompt_embedding import MultitaskPromptEmbedding
from keras_mpt.types import Tensor


class Window(keras.layers.Layer):
    """Some tasks' factors, in the place of a prompt layer that holds all tasks'.

    Args:
        prompt: the layer of all tasks; P is its own.
        slots: int. K, how many tasks there is room for.
    """

    def __init__(self, prompt: MultitaskPromptEmbedding, slots: int) -> None:
        super().__init__(name="window", dtype=prompt.dtype_policy)
        self.tasks, self.slots = prompt.num_tasks, slots
        self._shared = (prompt.prompt_embeddings,)  # In a tuple: the variable is the prompt's.
        for name in ("prefix_task_cols", "prefix_task_rows"):
            shape = (slots, *getattr(prompt, name).shape[1:])
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer="zeros"))
        self.held = self.add_weight(
            name="held", shape=(slots,), dtype="int32", initializer="zeros", trainable=False
        )
        self.built = True

    @property
    def factors(self) -> tuple[keras.Variable, keras.Variable]:
        """cols (K, M·L, R) and rows (K, R, d)."""
        return self.prefix_task_cols, self.prefix_task_rows

    def for_rows(self, task_ids: Tensor, batch_size: int | Tensor) -> Tensor:
        """Each row's own task's prompt, as `Prompt.for_rows`; NaN of a task that is not held."""
        return self(ops.broadcast_to(task_ids, (batch_size,)))

    def call(self, task_ids: Tensor) -> Tensor:
        """The prompts of `task_ids`."""
        ids = ops.cast(task_ids, "int32")
        slots = ops.minimum(ops.searchsorted(self.held, ids), self.slots - 1)
        is_held = ops.equal(ops.take(self.held, slots), ids)
        cols, rows = gather_factors(*self.factors, ops.where(is_held, slots, -1))
        shared = self._shared[0]
        return combine(*(ops.cast(x, self.compute_dtype) for x in (shared, cols, rows)))

    def compute_output_shape(self, task_ids_shape: tuple[int | None, ...]) -> tuple[Any, ...]:
        """(B, M·L, d)."""
        return (*task_ids_shape, *self._shared[0].shape)


class Pages:
    """Brings a batch's tasks into a window, and takes them back to their tables.

    Args:
        prompt: the layer of all tasks.
        window: a `Window` on it.
    """

    def __init__(self, prompt: MultitaskPromptEmbedding, window: Window) -> None:
        self.window = window
        self._factors = list(
            zip(window.factors, (prompt.prefix_task_cols, prompt.prefix_task_rows), strict=True)
        )
        self._optimizer: Any = None
        self._kept: list[tuple[keras.Variable, keras.Variable]] = []

    def are_of(self, tables: Sequence[keras.Variable]) -> bool:
        """Whether these are the tables still: tasks that come or go make others."""
        own = [table for _, table in self._factors]
        return all(a is b for a, b in zip(own, tables, strict=True)) and (
            own[0].shape[0] == self.window.tasks
        )

    def follow(self, optimizer: Any) -> None:
        """Makes tables of what a built optimizer keeps of the window's factors: nothing yet."""
        if optimizer is self._optimizer:
            return
        self._optimizer, self._kept = optimizer, []
        for factor, table in self._factors:
            for own in optimizer.variables:
                if factor.path.replace("/", "_") in own.path:
                    start = np.asarray(ops.convert_to_numpy(own))[:1]
                    values = np.broadcast_to(start, (table.shape[0], *own.shape[1:]))
                    whole = keras.Variable(values, trainable=False, name=own.name)
                    self._kept.append((own, whole))

    @contextmanager
    def holding(self, tasks: np.ndarray, kept: np.ndarray) -> Iterator[None]:
        """Around a step on a batch of these tasks.

        Args:
            tasks: int array (k,), sorted, each once, k at most K.
            kept: bool array (k,). Those that the step leaves as they are.
        """
        pairs = [*self._factors, *self._kept]
        places = np.concatenate([tasks, np.repeat(tasks[-1:], self.window.slots - len(tasks))])
        places = places.astype("int32")
        self.window.held.assign(places)
        for own, table in pairs:
            own.assign(_rows_of(table, places))
        yield
        changed = np.flatnonzero(~kept)
        for own, table in pairs:
            _put(table, own, changed, tasks)


def _rows_of(table: keras.Variable, places: np.ndarray) -> Tensor:
    """Some rows of a variable."""
    if keras.backend.backend() == "tensorflow":  # `ops.take` would copy the whole variable.
        import tensorflow as tf

        return tf.gather(table.value, places)
    return ops.stop_gradient(ops.take(table.value, places, axis=0))


def _put(table: keras.Variable, new: keras.Variable, slots: np.ndarray, tasks: np.ndarray) -> None:
    """Writes slots of a window into their tasks' rows of a variable, in place.

    `ops.scatter_update` copies what it writes into, which is what is to be spared here.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        own = tf.IndexedSlices(tf.gather(new.value, slots), tf.constant(tasks[slots], "int32"))
        table.value.scatter_update(own)
    elif backend == "torch":
        import torch

        at, to = (torch.as_tensor(x, dtype=torch.long) for x in (slots, tasks[slots]))
        values = table.value.data
        values.index_copy_(0, to.to(values.device), new.value.data[at])
    else:  # Of one size, to be compiled once: what is not to be written goes to a row past the end.
        places = np.full(new.shape[0], table.shape[0], "int32")
        places[slots] = tasks[slots]
        table.assign(_written_by_jax()(table.value, places, new.value))


@functools.cache
def _written_by_jax() -> Any:
    import jax

    def write(table: Any, places: Any, values: Any) -> Any:
        return table.at[places].set(values, mode="drop")

    return jax.jit(write, donate_argnums=0)
