"""The processes that train together, each with devices of its own: which one this is, and talk.

JAX's are those of `jax.distributed`, PyTorch's those of a process group, TensorFlow's those of
`TF_CONFIG`.
"""

from __future__ import annotations

import json
import os
from typing import Any

import keras
import numpy as np


def process_count() -> int:
    """How many processes there are; 1 where nobody said that there are more."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return int(jax.process_count())
    if backend == "torch":
        group = _group()
        return 1 if group is None else int(group.get_world_size())
    return sum(map(len, _cluster().values()))


def process_index() -> int:
    """Which of them this one is, from 0."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return int(jax.process_index())
    if backend == "torch":
        group = _group()
        return 0 if group is None else int(group.get_rank())
    kind, index = _task()
    before = [len(of) for name, of in sorted(_cluster().items()) if name < kind]
    return sum(before) + index


def is_writer() -> bool:
    """Whether this process writes the files of all: the first one does."""
    return process_index() == 0


def gathered(text: str) -> list[str]:
    """What each process says, in their order. All must ask, and all get the same answer.

    On TensorFlow processes talk within a step alone: there it is what this one says.

    Args:
        text: string.
    """
    if process_count() == 1 or keras.backend.backend() == "tensorflow":
        return [text]
    if keras.backend.backend() == "torch":
        import torch

        said: list[Any] = [None] * process_count()
        torch.distributed.all_gather_object(said, text)
        return said
    from jax.experimental.multihost_utils import process_allgather

    content = np.frombuffer(text.encode(), "uint8")
    sizes = process_allgather(np.array([content.size])).ravel()
    padded = np.zeros(int(sizes.max()), "uint8")
    padded[: content.size] = content
    rows = process_allgather(padded)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def _group() -> Any:
    """`torch.distributed`, where a process group was made; else `None`."""
    import torch

    made = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed if made else None


def _cluster() -> dict[str, list[str]]:
    """The addresses of those that train, by what they are called in `TF_CONFIG`."""
    cluster = _config().get("cluster", {})
    return {k: v for k, v in cluster.items() if k in ("chief", "worker")} or {"worker": [""]}


def _task() -> tuple[str, int]:
    task = _config().get("task", {})
    return task.get("type", "worker"), int(task.get("index", 0))


def _config() -> dict[str, Any]:
    found = json.loads(os.environ.get("TF_CONFIG") or "{}")
    return found if isinstance(found, dict) else {}
