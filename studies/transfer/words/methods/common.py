"""What the methods on keras_mpt's models have alike: steps, predictions, tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from studies.transfer.job import Job, decay
from studies.transfer.rows import Inputs, Rows, by_length, training_batches
from studies.transfer.tasks import Task
from studies.transfer.watch import Watch
from studies.transfer.words.answers import Arrays, attached, taken_by
from studies.transfer.words.workbench import MAX_ANSWER, Workbench

Predict = Callable[[Rows], np.ndarray]
# Of so many batches, the rows are dealt out by their lengths.
POOL = 4


def batches(job: Job) -> Iterator[Arrays]:
    """The job's batches, the same for every method."""
    assert job.task.answers is not None
    for x, y in training_batches(job.rows, job.batch_size, job.steps, job.seed, POOL):
        yield attached(x, [job.task.answers[label] for label in y])


def compile_with(model: Any, optimizer: Any) -> None:
    """With the mean over the tokens that are answers, and nothing else reported."""
    model.compile(optimizer, weighted_metrics=[])


def adam(rate: float, steps: int) -> Any:
    """Adam, its rate falling to 0."""
    import keras

    return keras.optimizers.Adam(decay(rate, steps))


def fit(model: Any, job: Job, task_ids: int | None = None) -> Predict:
    """`job.steps` steps on the job's batches, watched; gives the model's `predict`."""
    predict = predictor(job.bench, model, job.task, task_ids)
    job.watch.begin(predict)

    def with_tasks() -> Iterator[Arrays]:
        for arrays in batches(job):
            x, y, weights = taken_by(model, arrays)
            yield with_task(x, task_ids), y, weights

    model.fit(with_tasks(), steps_per_epoch=job.steps, epochs=1, verbose=0,
              callbacks=[watching(job.watch)])  # fmt: skip
    return predict


def predictor(bench: Workbench, model: Any, task: Task, task_ids: int | None = None) -> Predict:
    """Labels of rows, or texts where the task's answers are texts."""
    if task.is_text:
        return lambda rows: generated(bench, model, rows, task_ids)
    answers = [answer.tolist() for answer in task.answers or []]

    def labels(x: Inputs) -> np.ndarray:
        return np.asarray(model.predict_labels(with_task(x, task_ids), answers))

    return lambda rows: by_length(labels, rows, bench.predict_rows)


def generated(bench: Workbench, model: Any, rows: Rows, task_ids: int | None) -> np.ndarray:
    """Each row's likeliest answer, as a string."""
    model.set_sampler("greedy")

    def texts(x: Inputs) -> np.ndarray:
        lengths = x["padding_mask"].sum(axis=1)
        wider = {
            name: np.pad(x[name], [(0, 0), (0, MAX_ANSWER)])
            for name in ("token_ids", "padding_mask")
        }
        given = model.generate(with_task(wider, task_ids), stop_token_ids=[bench.model.end])
        return texts_after(bench, given["token_ids"], given["padding_mask"], lengths)

    return by_length(texts, rows, bench.predict_rows)


def texts_after(
    bench: Workbench, ids: np.ndarray, mask: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """What rows say from some position on, up to an end token."""
    found = []
    for row, own, length in zip(np.asarray(ids), np.asarray(mask), lengths, strict=True):
        new = row[length : int(own.sum())].tolist()
        new = new[: new.index(bench.model.end)] if bench.model.end in new else new
        found.append(bench.model.decode(new).strip())
    return np.array(found, dtype=object)


def with_task(x: Inputs, task_ids: int | None) -> Inputs:
    """The inputs with a task's id for each row; as they are without one."""
    if task_ids is None:
        return x
    return {**x, "task_ids": np.full(len(x["token_ids"]), task_ids, "int32")}


def watching(watch: Watch) -> Any:
    """A callback that looks at the model on its way."""
    import keras

    class Watching(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            watch.after_step(batch + 1, float((logs or {})["loss"]))

    return Watching()
