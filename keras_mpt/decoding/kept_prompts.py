"""Prompts' keys and values, kept from one call of `generate` or `score` to the next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy, to_power_of_two
from keras_mpt.types import Tensor, Tensors

# What is kept of all tasks together: about a hundred tasks of a GPT-2 with 100 virtual tokens.
MAX_BYTES = 512 * 2**20


class KeptPrompts:
    """The caches of the tasks that were asked for last, as long as they are right.

    The rule: a task's cache is used as long as the task's prompt has the very numbers, bit by bit,
    that the cache was made of. So training, assignment and loading drop it by themselves. The
    backbone is frozen; all is dropped where a sample of each of its variables differs, as it does
    after loading or quantizing. Threads may ask at once, and wait for each other.

    Args:
        compute: function of prompts, a float tensor (K, L, d), that gives their cache, a nest of
            tensors (K, …).
        sample: function that gives a sample of the backbone's numbers.
        max_bytes: int. What is kept at most: the tasks asked for last. A batch that needs more has
            its tasks computed again in its next call. Defaults to `MAX_BYTES`, 512 MiB.
    """

    def __init__(
        self,
        compute: Callable[[Tensor], Tensors],
        sample: Callable[[], Tensor],
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.compute, self.sample = compute, sample
        self.max_bytes = max_bytes
        self._kept: OrderedDict[int, tuple[np.ndarray, Tensors]] = OrderedDict()
        self._sample: np.ndarray | None = None
        self._lock = threading.RLock()

    @property
    def tasks(self) -> list[int]:
        """The tasks that are kept, the one asked for last at the end."""
        with self._lock:
            return list(self._kept)

    @property
    def nbytes(self) -> int:
        """How much is kept."""
        with self._lock:
            return sum(_nbytes(cache) for _, cache in self._kept.values())

    def clear(self) -> None:
        """Forgets everything."""
        with self._lock:
            self._kept.clear()

    def get(
        self,
        tasks: Sequence[int],
        prompts: Tensor,
        compute: Callable[[Tensor], Tensors] | None = None,
    ) -> Tensors:
        """The tasks' caches, computed where they are missing or not of these prompts.

        Args:
            tasks: K ints, of which some may repeat.
            prompts: float tensor (K, L, d): their prompts as they are now.
            compute: as in `KeptPrompts`, for prompts of this length. Defaults to `None`: that.

        Returns:
            A nest of tensors (K, …).
        """
        with self._lock:
            return self._get(tasks, prompts, compute or self.compute)

    def _get(
        self, tasks: Sequence[int], prompts: Tensor, compute: Callable[[Tensor], Tensors]
    ) -> Tensors:
        self._check_backbone()
        numbers = to_numpy(ops.cast(prompts, "float32"))
        places = {int(task): i for i, task in enumerate(tasks)}
        caches = {task: self._kept_cache(task, numbers[i]) for task, i in places.items()}
        missing = [task for task, cache in caches.items() if cache is None]
        if missing:
            # As many as a power of two, by repeating the first: few sizes are then compiled.
            rows = to_power_of_two(np.array([places[task] for task in missing], "int32"))
            made = compute(ops.take(prompts, rows, axis=0))
            for n, task in enumerate(missing):
                # A copy: on PyTorch a part would hold all that was computed with it.
                caches[task] = keras.tree.map_structure(lambda t, n=n: ops.copy(t[n]), made)
                self._kept[task] = (numbers[places[task]].copy(), caches[task])
        for task in places:
            self._kept.move_to_end(task)
        while self.nbytes > self.max_bytes:
            self._kept.popitem(last=False)
        rows_of = [caches[int(task)] for task in tasks]
        return keras.tree.map_structure(lambda *parts: ops.stack(parts), *rows_of)

    def _kept_cache(self, task: int, prompt: np.ndarray) -> Tensors | None:
        """The task's cache, or `None` where there is none of this prompt."""
        kept_prompt, cache = self._kept.get(task, (None, None))
        is_same = kept_prompt is not None and kept_prompt.tobytes() == prompt.tobytes()
        return cache if is_same else None

    def _check_backbone(self) -> None:
        sample = to_numpy(self.sample())
        if self._sample is None or self._sample.tobytes() != sample.tobytes():
            self.clear()
        self._sample = sample


def _nbytes(cache: Tensors) -> int:
    def size(tensor: Tensor) -> int:
        bits = int(keras.backend.standardize_dtype(tensor.dtype).lstrip("bfloat"))
        return int(np.prod(tensor.shape)) * bits // 8

    return sum(size(tensor) for tensor in keras.tree.flatten(cache))
