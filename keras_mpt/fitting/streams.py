"""A function applied to each batch of a stream, whichever library makes the stream.

Task ids in a stream must be checked before a compiled graph hides them. Each kind of stream that
`keras.Model.fit` takes has its own way to do that; this module holds them all. No library is
imported: the kind is told by the stream's own class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_mpt.data.task_mix import own_part, whole_batch

Prepare = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


def is_stream(x: Any) -> bool:
    """Whether `x` yields batches itself, rather than being arrays to make batches of."""
    return (
        isinstance(x, keras.utils.PyDataset)
        or _comes_from(x, "tensorflow", "Dataset")
        or _comes_from(x, "torch", "DataLoader")
        or _comes_from(x, "grain", "MapDataset", "IterDataset")
        or hasattr(x, "__next__")
    )


def map_batches(stream: Any, prepare: Prepare, prepare_tf: Prepare, is_whole: bool = False) -> Any:
    """A stream of the same kind whose batches went through `prepare`.

    Args:
        stream: `tf.data.Dataset`, `keras.utils.PyDataset`, `torch.utils.data.DataLoader`, Grain
            dataset or generator, of `x`, `(x, y)` or `(x, y, sample_weight)` batches.
        prepare: function of `(x, y, sample_weight)` on arrays; it returns the same three.
        prepare_tf: the same for symbolic tensors, inside `tf.data`.
        is_whole: bool. Whether the stream is a `TaskMix` whose batches are prepared with all their
            parts, of which its own is taken: so all parts are of one shape. Defaults to `False`.

    Returns:
        A stream.
    """

    if number_of_batches(stream) == 0:
        raise ValueError(
            f"`x` should have at least one batch. Received: a {type(stream).__name__} without any"
        )

    def on_batch(batch: Any) -> Any:
        return _apply(prepare, batch)

    if _comes_from(stream, "tensorflow", "Dataset"):
        return stream.map(lambda *batch: _apply(prepare_tf, batch))
    if isinstance(stream, keras.utils.PyDataset):
        return _MappedPyDataset(stream, on_batch, is_whole)
    if _comes_from(stream, "torch", "DataLoader"):
        return _mapped_loader(stream, on_batch)
    if _comes_from(stream, "grain", "MapDataset", "IterDataset"):
        return stream.map(on_batch)
    return (on_batch(batch) for batch in stream)


def _apply(prepare: Prepare, batch: Any) -> Any:
    packed = keras.utils.pack_x_y_sample_weight(
        *prepare(*keras.utils.unpack_x_y_sample_weight(batch))
    )
    # A tuple even of x alone: Keras takes nothing else from a generator.
    return packed if isinstance(packed, tuple) else (packed,)


def number_of_batches(stream: Any) -> int | None:
    """How many batches a stream has, if it can tell."""
    if _comes_from(stream, "tensorflow", "Dataset"):
        return int(stream.cardinality())
    try:
        if isinstance(stream, keras.utils.PyDataset):
            return stream.num_batches
        return len(stream)
    except (TypeError, NotImplementedError):
        return None


def _comes_from(x: Any, package: str, *names: str) -> bool:
    """Whether a class of `x` has one of `names` and lives in `package`."""
    return any(
        base.__module__.split(".")[0] == package
        and any(base.__name__.startswith(n) or base.__name__.endswith(n) for n in names)
        for base in type(x).__mro__
    )


class _MappedPyDataset(keras.utils.PyDataset):
    def __init__(self, dataset: Any, function: Callable[[Any], Any], is_whole: bool) -> None:
        super().__init__(
            workers=dataset.workers,
            use_multiprocessing=dataset.use_multiprocessing,
            max_queue_size=dataset.max_queue_size,
        )
        self.dataset = dataset
        self.function = function
        self.is_whole = is_whole

    def __getitem__(self, index: int) -> Any:
        batch = whole_batch(self.dataset, index) if self.is_whole else self.dataset[index]
        # Keras's workers leave out a `None`, such as one past the end of a `TaskMix`'s epoch.
        if batch is None:
            return None
        made = self.function(batch)
        return own_part(self.dataset, made) if self.is_whole else made

    @property
    def num_batches(self) -> int | None:
        return self.dataset.num_batches

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()


def _mapped_loader(loader: Any, function: Callable[[Any], Any]) -> Any:
    """A DataLoader with the same settings; Keras asks for that class, not for an iterable."""
    import torch
    from torch.utils.data import DataLoader

    def as_tensor(value: Any) -> Any:
        return value if torch.is_tensor(value) else torch.as_tensor(np.asarray(value))

    class MappedLoader(DataLoader):
        def __init__(self) -> None:
            # Not `super().__init__`: the settings are the other loader's, taken over whole.
            self.__dict__.update(loader.__dict__)

        def __iter__(self) -> Iterator[Any]:
            return (keras.tree.map_structure(as_tensor, function(batch)) for batch in loader)

        def __len__(self) -> int:
            return len(loader)

    return MappedLoader()
