"""One training in several processes, each of which reads its part of a `TaskMix`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_mpt.data.task_mix import TaskMix
from keras_mpt.fitting.kept import kept_through
from keras_mpt.fitting.parts import among_processes
from keras_mpt.fitting.steps import data_are_checked
from keras_mpt.processes import gathered, process_count
from keras_mpt.types import Logs


@contextlib.contextmanager
def together(model: Any, x: Any, callbacks: Any) -> Iterator[Any]:
    """Around a `fit` that may be one of several that make one training.

    JAX's and TensorFlow's distributions do that themselves. On PyTorch, where Keras has none, a mix
    with a `shard` says that it is so: as `DistributedDataParallel` does, the processes start from
    the first one's weights and take each step by the mean of their gradients. The backbone has
    none.

    Args:
        model: a `Fitting`.
        x: what `fit` was given.
        callbacks: likewise.

    Yields:
        The callbacks.

    Raises:
        ValueError: processes that do not read parts of one mix, before anything is changed.
    """
    if isinstance(x, TaskMix):
        check_same_mix(x)
    is_part = isinstance(x, TaskMix) and x.shard[1] > 1 and process_count() > 1
    if not is_part or keras.backend.backend() != "torch":
        with kept_through(model.kept.parts()):
            yield callbacks
        return
    import torch

    count, optimizer = process_count(), model.optimizer

    def add_up(values: Any) -> Any:
        torch.distributed.all_reduce(values)
        return values

    def mean_gradients(gradients: Sequence[Any], variables: Sequence[Any]) -> Any:
        # In one message, whatever order they came in. What this process's rows did not use has
        # none, while those of another may have.
        pairs = list(zip(gradients, variables, strict=True))
        own = [torch.zeros_like(v.value) if g is None else g for g, v in pairs]
        flat = add_up(torch.cat([gradient.reshape(-1) for gradient in own])) / count
        parts = flat.split([gradient.numel() for gradient in own])
        found = [part.reshape(g.shape) for part, g in zip(parts, own, strict=True)]
        return apply(found, variables)

    def metrics_of_all() -> Any:
        # Keras asks in each step, for its own rows, and at the end of the steps of an epoch.
        if due.steps and not data_are_checked(model):
            due.steps = False
            for variable in model.metrics_variables:
                variable.assign(add_up(variable.value.detach().clone()))
        return metrics()

    due, metrics = _Due(), model.get_metrics_result
    for variable in model.trainable_variables:
        torch.distributed.broadcast(variable.value.data, 0)
    apply, optimizer.apply = optimizer.apply, mean_gradients
    model.get_metrics_result = metrics_of_all
    try:
        with among_processes(add_up, count), kept_through(model.kept.parts()):
            yield [due, *keras.tree.flatten(callbacks or [])]
    finally:
        del optimizer.apply, model.get_metrics_result


def check_same_mix(mix: TaskMix) -> None:
    """Refuses processes that do not read parts of one mix. All of them must ask.

    Args:
        mix: this process's.

    Raises:
        ValueError: mixes of other data or settings, or parts that are not those of one batch.
    """
    if keras.backend.backend() == "tensorflow" and process_count() > 1 and mix.shard[1] > 1:
        raise ValueError(
            "`shard` should be left out under TensorFlow's workers, whose strategy takes each "
            f"one's part of a batch itself. Received: shard={mix.shard}"
        )
    said = [json.loads(text) for text in gathered(json.dumps([mix.fingerprint(), mix.shard]))]
    if len(said) == 1:
        return
    first = said[0][0]
    for k, (found, _) in enumerate(said):
        names = [name for name in first if found[name] != first[name]]
        if names:
            there = {name: found[name] for name in names}
            here = {name: first[name] for name in names}
            raise ValueError(
                "`x` should be the same mix in all processes, but for its shard. Received: x with "
                f"{_shown(here)} in process 0 and {_shown(there)} in process {k}"
            )
    shards = [tuple(shard) for _, shard in said]
    wanted = sorted((index, _parts_of_batch()) for index in _indexes(len(said)))
    if sorted(shards) != wanted:
        raise ValueError(
            f"`shard` should be (index, {_parts_of_batch()}) in these {len(said)} processes, with "
            f"the indexes {[index for index, _ in wanted]}. Received: shard={shards} in processes "
            f"0 to {len(said) - 1}"
        )


def _parts_of_batch() -> int:
    """The processes, or fewer: a copy of the model may span several."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return process_count()
    return min(process_count(), int(distribution.num_model_replicas))


def _indexes(count: int) -> list[int]:
    parts = _parts_of_batch()
    return [index * parts // count for index in range(count)]


def _shown(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())[:200]


class _Due(keras.callbacks.Callback):
    """Knows whether steps were trained whose metrics were not added up yet."""

    steps = False

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """There is one more."""
        self.steps = True
