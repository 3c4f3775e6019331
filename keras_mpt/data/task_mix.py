"""Several tasks' data in one stream of mixed batches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt.checks import check_count, check_flag, check_keywords, check_size, is_integer
from keras_mpt.data.buckets import BucketedRows, with_lengths
from keras_mpt.data.sampling import SampledRows, check_max_tasks, check_shard, task_weights
from keras_mpt.data.task_rows import task_rows

# Keras's own arguments of a `PyDataset`.
_OF_KERAS = ("workers", "use_multiprocessing", "max_queue_size")


class TaskMix(keras.utils.PyDataset):
    """Batches that mix several tasks' rows, with their `task_ids`.

    Shuffling and repeating are Grain's (`pip install keras-mpt[data]`), so the same seed gives the
    same batches on every backend. Each task has a stream of its own: all its rows, once each in an
    order drawn anew for each pass. What is chosen is which task's stream the next row comes from:

    - By default every batch holds all tasks, as many rows of each as `weights` say (Grain's `mix`).
    - `max_tasks_per_batch=K` is the paper's stochastic sampling. For each batch a number is drawn
      uniformly from {2..K}, then that many tasks without replacement, task k with the chance
      w_k / Σ w of those left. They share the batch evenly: their numbers of rows differ by 1 at
      most.

    An epoch is `steps` batches, however they are drawn. A task that is drawn more often than it has
    rows starts over in a new order, another may not be read to its end, and the next epoch goes on
    where this one stopped. Over all epochs, rows of a task differ by 1 at most in how often they
    came. To validate on all rows, each once, `stack_tasks` is there.

    Args:
        datasets: dict of task name to `(x, y)`, of any of the model's tasks in any order: a model
            whose tasks have names goes by these. `x` is a dict of arrays (N, …), or a list of N
            strings or pairs of strings, or a tuple of two such lists; columns of tables will do.
            Where some rows are pairs, others have an empty second text.
            `y` is an array (N, …), or `None` for all tasks where a language model's preprocessor
            makes the targets of text. Of a language model, `{"prompts": …}` with integer labels of
            a task that has label words and `{"prompts": …, "responses": …}` without may stand side
            by side: batches then have both columns, the label −100 in rows with a response, and
            empty responses in rows with a label. `(x, y, sample_weight)` gives rows weights; those
            of tasks without are 1.
        batch_size: int. B. Defaults to `32`.
        weights: w, how often each task is drawn: `"uniform"`, `"proportional"` (to its rows N_k),
            `"temperature"` (to N_k^(1 / temperature)), or a list of positive numbers. Defaults to
            `"uniform"`.
        steps: int. Batches in an epoch. `None` is all tasks' rows divided by B, rounded up.
            Defaults to `None`.
        shuffle: bool. Whether to shuffle each task's rows. Defaults to `True`.
        seed: int. 0 or more. Defaults to `0`.
        temperature: float. 1 is proportional; the higher, the nearer to uniform. It counts for
            `weights="temperature"` alone. Defaults to `2.0`.
        max_tasks_per_batch: int. K, from 2 to the number of tasks and at most B. `None` mixes all
            tasks into every batch. Defaults to `None`.
        size_limit: int. The most rows of a task that count as N_k where `weights` follow these:
            min(N_k, size_limit). T5 and the paper take 2**18. `None` counts all. Defaults to
            `None`.
        shard: pair of ints `(index, count)`. Where each of `count` processes has a mix of its own,
            it reads the part `index` of every batch: B / count rows, so that the parts, one after
            another, are the batch that one process would read, and all have as many steps. B is
            still the rows of a whole batch, and a multiple of `count`. `None` is all of it.
            Defaults to `None`.
        bucket_by_length: bool. Whether rows of like length stand in one batch, whose padding a
            model's `fit` and `evaluate` then leave out. Rows are dealt among 32 batches at a time:
            an epoch holds the same rows, but by default only so many batches together have each
            task's share. With `max_tasks_per_batch` each batch keeps its tasks. Lengths are those
            of `padding_mask`; of text, about its words. Defaults to `False`.
        **kwargs: those of `keras.utils.PyDataset`.

    Yields:
        `(x, y)`: `x` a dict of arrays (B, …) with `task_ids` (B,) int32, the tasks' places in
        `datasets`, and `text` where `x` was strings; `y` an array (B, …). `(x,)` where there are no
        targets, `(x, y, sample_weight)` where there are weights.

    Raises:
        ValueError: a dataset that is empty, has other inputs than the rest or more or fewer targets
            than rows, or weights, a temperature, a number of tasks or a shard that do not fit.

    Example:
        ```python
        datasets = {
            "tone": (["fine", "awful", "great"], np.array([1, 0, 1])),
            "topic": (["goals", "votes"], np.array([0, 1])),
            "intent": (["book a table", "play a song"], np.array([0, 1])),
        }
        mix = keras_mpt.TaskMix(datasets, batch_size=4)
        x, y = mix[0]
        assert x["text"].shape == x["task_ids"].shape == y.shape == (4,)

        mix = keras_mpt.TaskMix(datasets, batch_size=4, max_tasks_per_batch=2)
        x, y = mix[0]
        assert len(set(x["task_ids"].tolist())) == 2

        halves = [keras_mpt.TaskMix(datasets, batch_size=4, shard=(i, 2)) for i in range(2)]
        parts = [half[0][1] for half in halves]
        assert np.concatenate(parts).tolist() == keras_mpt.TaskMix(datasets, 4)[0][1].tolist()
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3.2, for the stochastic sampling; Raffel et
    al. 2020 (arXiv 1910.10683), section 3.5.2, for the temperature and the limit.
    """

    def __init__(
        self,
        datasets: Mapping[str, tuple[Any, ...]],
        batch_size: int = 32,
        weights: str | Sequence[float] = "uniform",
        steps: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        temperature: float = 2.0,
        max_tasks_per_batch: int | None = None,
        size_limit: int | None = None,
        shard: tuple[int, int] | None = None,
        bucket_by_length: bool = False,
        **kwargs: Any,
    ) -> None:
        check_keywords("TaskMix", kwargs, [*_OF_KERAS, *inspect.signature(TaskMix).parameters])
        super().__init__(**kwargs)
        self.batch_size = check_size("batch_size", batch_size)
        if steps is not None:
            steps = check_size("steps", steps)
        self.shuffle = check_flag("shuffle", shuffle)
        self.seed = check_count("seed", seed)
        self.shard = check_shard(shard, self.batch_size)
        self.bucket_by_length = check_flag("bucket_by_length", bucket_by_length)
        grain = _grain()
        tasks = task_rows(datasets)
        sizes = [len(task) for task in tasks]
        self.task_names = list(datasets)
        self.steps = steps or -(-sum(sizes) // self.batch_size)
        self.weights = task_weights(weights, temperature, sizes, size_limit)
        check_max_tasks(max_tasks_per_batch, len(tasks), batch_size)
        self.max_tasks_per_batch = max_tasks_per_batch
        self.epoch = 0
        self.first_step = 0
        self._is_counted = self._is_being_read = False
        self._tasks = tasks
        mixed = self._mixed(grain, tasks)
        if self.bucket_by_length:
            keys = self._mixed(grain, with_lengths(dict(zip(datasets, tasks, strict=True))))
            keeps_tasks = max_tasks_per_batch is not None
            settings = self.batch_size, self.steps, self.seed, keeps_tasks
            mixed = grain.MapDataset.source(BucketedRows(mixed, keys, *settings))
        # Parts of batches, one after another.
        self._parts = mixed.batch(self.batch_size // self.shard[1])

    def _mixed(self, grain: Any, sources: Sequence[Any]) -> Any:
        """Rows of all tasks in the order in which they are drawn.

        Args:
            grain: the library.
            sources: what each task's rows, or what stands for them, are found in by number.
        """
        streams = []
        for k, source in enumerate(sources):
            stream = grain.MapDataset.source(source).seed(self.seed + k)
            streams.append((stream.shuffle() if self.shuffle else stream).repeat())
        if self.max_tasks_per_batch is None:
            return grain.MapDataset.mix(streams, self.weights)
        rows = SampledRows(
            self.weights, self.max_tasks_per_batch, self.batch_size, self.steps, self.seed
        )
        return grain.MapDataset.select_from_datasets(streams, rows)

    def __repr__(self) -> str:
        rows = {
            n: len(task) for n, task in list(zip(self.task_names, self._tasks, strict=True))[:5]
        }
        shown = ", ".join(f"{name!r}: {count:,} rows" for name, count in rows.items())
        more = ", …" if len(self.task_names) > len(rows) else ""
        return (
            f"<TaskMix of {len(self.task_names)} tasks ({shown}{more}), {self.steps:,} batches of "
            f"{self.batch_size} in an epoch>"
        )

    def __len__(self) -> int:
        return self.steps - (self.first_step if self._is_being_read else 0)

    def __getitem__(self, index: int) -> tuple[Any, ...] | None:
        return self._read(index, [self.shard[0]])

    def _read(self, index: int, parts: Sequence[int]) -> tuple[Any, ...] | None:
        step = self.first_step + index
        if step >= self.steps and self._is_counted:
            # Keras's workers may have counted before the epoch began. They leave out a `None`.
            return None
        first = (self.epoch * self.steps + step) * self.shard[1]
        found = [tuple(self._parts[first + part]) for part in parts]
        if len(found) == 1:
            return found[0]
        joined: tuple[Any, ...] = keras.tree.map_structure(lambda *a: np.concatenate(a), *found)
        return joined

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Goes to a place in the order of batches, for a run that was cut short there.

        The next epoch that is read is `epoch`, from its batch `step` on, and those after it are
        whole: batches are those that an unbroken run reads. Before `fit`, or in a callback's
        `on_train_begin`.

        Keras counts an epoch's batches once, before the first one. So `len(mix)` is `steps` until
        the epoch has begun, `steps - step` within it, and `steps` again after it. To Keras the data
        of the first epoch run out: it warns so, ends that epoch, and reads the next one whole.
        Its progress bar and callbacks count that epoch's batches from 0. A plain Keras model needs
        `fit(mix, shuffle=False)`: it shuffles an epoch's batches otherwise.

        Args:
            epoch: int. The epoch, 0 being the first.
            step: int. How many of its batches were read already. Defaults to `0`.

        Raises:
            ValueError: a negative epoch, or a step that is not within an epoch.

        Example:
            ```python
            datasets = {"tone": (["fine", "awful"], [1, 0]), "topic": (["goals"], [0])}
            whole, rest = (keras_mpt.TaskMix(datasets, batch_size=2, steps=4) for _ in range(2))
            rest.start_at(epoch=0, step=3)
            assert rest[0][0]["text"].tolist() == whole[3][0]["text"].tolist()
            ```
        """
        check_count("epoch", epoch)
        if not is_integer(step, 0, self.steps):
            raise ValueError(
                f"`step` should be an integer from 0 to {self.steps - 1}, an epoch having "
                f"{self.steps} batches. Received: step={step!r}"
            )
        self.epoch, self.first_step = int(epoch), int(step)
        if self._is_being_read:  # It broke off, and with it the `fit` that counted.
            self._is_counted = self._is_being_read = False

    def fingerprint(self) -> dict[str, Any]:
        """What the order of batches follows from, to tell whether a run may go on with this mix.

        All shards of a mix have the same one: a run may go on with more processes, or fewer.

        Returns:
            A dict that JSON can hold: the tasks' names, rows and checksums, and the settings.

        Example:
            ```python
            import json

            mix = keras_mpt.TaskMix({"tone": (["fine", "awful"], [1, 0])}, batch_size=2)
            assert json.loads(json.dumps(mix.fingerprint())) == mix.fingerprint()
            ```
        """
        most = self.max_tasks_per_batch
        # Runs of before there was a choice go on.
        dealt = {"bucket_by_length": True} if self.bucket_by_length else {}
        return {
            "task_names": self.task_names,
            "rows": [len(task) for task in self._tasks],
            "checksums": [task.checksum() for task in self._tasks],
            "batch_size": self.batch_size,
            "steps": self.steps,
            "weights": self.weights,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "max_tasks_per_batch": None if most is None else int(most),
            **dealt,
        }

    @property
    def within_epoch(self) -> bool:
        """Whether an epoch is being read."""
        return self._is_being_read

    def on_epoch_begin(self) -> None:
        """Notes that an epoch began: Keras also calls `on_epoch_end` before the first one."""
        self._is_counted = self._is_being_read = True

    def on_epoch_end(self) -> None:
        """Moves on: the next epoch holds the next rows, and is whole."""
        if self._is_being_read:
            self.epoch += 1
            self.first_step = 0
        self._is_counted = not self._is_being_read
        self._is_being_read = False


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError("`TaskMix` needs Grain: `pip install keras-mpt[data]`.") from error
    return grain


def whole_batch(mix: TaskMix, index: int) -> tuple[Any, ...] | None:
    """A batch of a mix with all its parts, whichever of them is the mix's own.

    Args:
        mix: the mix.
        index: int. As of `mix[index]`.
    """
    return mix._read(index, range(mix.shard[1]))


def own_part(mix: TaskMix, batch: Any) -> Any:
    """A mix's own part of a whole batch.

    Args:
        mix: the mix.
        batch: arrays (B, …), nested.
    """
    index, count = mix.shard
    rows = mix.batch_size // count
    return keras.tree.map_structure(lambda v: v[index * rows : (index + 1) * rows], batch)


def shuffle_of(x: Any, shuffle: bool | None) -> bool:
    """Keras's `shuffle` of a `fit` on `x`, where it was given or not; a `TaskMix` begins an epoch.

    Raises:
        ValueError: `True` with a `TaskMix`.
    """
    if not isinstance(x, TaskMix):
        return True if shuffle is None else shuffle
    if shuffle:
        raise ValueError(
            "`shuffle` should be left out or False: a `TaskMix` shuffles its rows itself, "
            f"by its seed. Received: shuffle={shuffle!r}"
        )
    if x.within_epoch:  # Of a `fit` that broke off. Keras has counted the batches by then.
        x.on_epoch_end()
    return False
