"""Multitask prompt tuning of keras_mpt: sources with or without teachers, then the target."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studies.transfer.job import Job, Method, SourceJob, Trained
from studies.transfer.rows import Rows, cropped, dealt_by_length
from studies.transfer.tasks import Task
from studies.transfer.words.answers import Arrays, attached, taken_by
from studies.transfer.words.methods.common import POOL, compile_with, fit, predictor
from studies.transfer.words.methods.prompt import (
    FACTORS_OVER_SHARED,
    new_prompt,
    start,
    two_speeds,
)
from studies.transfer.words.workbench import MAX_ANSWER, MAX_TOKENS

TEACHER_RATE = 0.03
# Of the target's own rows, how often the probe for the nearest source sees them.
PROBE_STEPS = 10


def train_source(job: SourceJob, distilled: bool = False, position: str = "before") -> Trained:
    """Trains the sources together, and saves them as an adapter in `job.folder`."""
    import keras

    import keras_mpt

    keras.utils.set_random_seed(job.seed)
    bench, names = job.bench, [task.name for task in job.tasks]
    config = keras_mpt.MultitaskPromptTuningConfig(
        **start(
            job.seed,
            job.virtual_tokens,
            "SAMPLE_VOCAB",
            num_tasks=len(names),
            task_names=names,
            prompt_position=position,
        )
    )
    student = keras_mpt.prompt_tune(bench.model.backbone, config, tokenizer=bench.model.tokenizer)
    model = keras_mpt.Distillation(student, teachers(job)) if distilled else student
    compile_with(model, two_speeds(job.rate, job.steps))
    model.fit(source_batches(job, student), verbose=0)
    student.save_adapter(job.folder, overwrite=True)

    def predict(rows: Rows, place: int) -> np.ndarray:
        return predictor(bench, student, job.tasks[place], place)(rows)

    notes = {"teacher_scores": teacher_scores(job)} if distilled and job.is_tested else {}
    return Trained(predict, student.parameter_count(), notes)


def teacher_scores(job: SourceJob) -> dict[str, float]:
    """What each teacher scores on its own task's test rows; of texts nothing."""
    import keras_mpt

    bench, found = job.bench, {}
    for task in job.tasks:
        if not task.is_text:
            model = keras_mpt.load_adapter(bench.model.backbone, job.teachers / task.name)
            predict = predictor(bench, model, task)
            found[task.name] = task.measure(task.test.y, predict(task.test))["score"]
    return found


def source_batches(job: SourceJob, model: Any = None) -> Any:
    """The mixed batches of the sources: the same for every method, as a model takes them."""
    import keras_mpt

    class Pooled(keras_mpt.TaskMix):
        """Rows dealt out by their lengths among each few batches, and no wider than they are."""

        pool: tuple[int, list[Arrays]] = (-1, [])

        def __getitem__(self, index: int) -> Any:
            first = index // POOL * POOL
            if self.pool[0] != first:
                places = range(first, min(first + POOL, self.steps))
                given = [super(Pooled, self).__getitem__(place) for place in places]
                self.pool = first, dealt_out(given, seed=[job.seed, first])
            found = self.pool[1][index - first]
            return found if model is None else taken_by(model, found)

    datasets = {task.name: whole(task) for task in job.tasks}
    # The paper's sampling: how many tasks a batch holds is drawn, then which.
    return Pooled(
        datasets,
        batch_size=job.batch_size,
        steps=job.steps,
        seed=job.seed,
        max_tasks_per_batch=len(datasets),
    )


def dealt_out(batches: Sequence[Arrays], seed: Sequence[int]) -> list[Arrays]:
    """The rows of some batches as as many batches of like lengths, in any order."""
    import keras

    x, y, weights = keras.tree.map_structure(lambda *own: np.concatenate(own), *batches)
    lengths, rng = x["padding_mask"].sum(axis=1), np.random.default_rng(seed)
    found = []
    for rows in dealt_by_length(lengths, len(batches), rng):
        own = cropped({name: value[rows] for name, value in x.items()})
        width = own["token_ids"].shape[1]
        found.append((own, y[rows, :width], weights[rows, :width]))
    return found


def whole(task: Task, width: int = MAX_TOKENS + MAX_ANSWER) -> Arrays:
    """All of a task's training rows as arrays of one width."""
    assert task.answers is not None
    return attached(task.train.x, [task.answers[label] for label in task.train.y], width)


def teachers(job: SourceJob) -> dict[str, Path]:
    """The sources' teachers, trained where they are not there yet.

    As `train_teachers` does it, but on batches that are each cut to their own longest row.
    """
    found = {}
    for task in job.tasks:
        found[task.name] = job.teachers / task.name
        if not found[task.name].is_dir():
            steps = job.teacher_epochs * -(-len(task.train) // job.batch_size)
            own = Job(
                job.bench, task, task.train, TEACHER_RATE, steps, job.seed, job.virtual_tokens,
                job.batch_size,
            )  # fmt: skip
            model = new_prompt(own, "SAMPLE_VOCAB")
            fit(model, own)
            model.save_adapter(found[task.name])
    return found


def train(
    job: Job,
    shared: bool = True,
    from_: str = "average",
    ranks: int | None = None,
    factors_over_shared: float = FACTORS_OVER_SHARED,
) -> Trained:
    """Adapts the sources' adapter to the target: P and factors, or the factors alone."""
    import keras

    import keras_mpt

    keras.utils.set_random_seed(job.seed)
    name = job.task.name
    found: dict[str, Any] = {"from_": from_}
    if from_ != "average":
        found |= {"data": {name: few(job)}, "probe_epochs": _epochs(job)}
    model = keras_mpt.adapt(
        job.source,
        [name],
        base=job.bench.model.backbone,
        train_shared=shared,
        num_ranks=ranks,
        verbose=0,
        **found,
    )
    compile_with(model, two_speeds(job.rate, job.steps, shared, factors_over_shared))
    predict = fit(model, job, task_ids=0)
    return Trained(predict, model.parameter_count(), notes={"from": model.adapted_from[name]})


def few(job: Job) -> Arrays:
    """The rows to train on, as arrays; of many rows the first ones."""
    assert job.task.answers is not None
    rows = Rows(job.rows.split, job.rows.index[:128])
    return attached(cropped(rows.x), [job.task.answers[label] for label in rows.y])


def _epochs(job: Job) -> int:
    steps_of_one = -(-min(len(job.rows), 128) // 32)  # Keras's own batches.
    return max(1, PROBE_STEPS // steps_of_one)


_TUNED = f"learning rate of P; the factors' is {FACTORS_OVER_SHARED:g} times that"
_RATES = (0.001, 0.003, 0.01, 0.03)
PLAIN = Method(
    "mpt_plain",
    "MPT without distillation",
    "sources trained together, then P and the average of their factors on the target",
    _TUNED,
    _RATES,
    train,
    train_source,
)
ONE_SPEED = Method(
    "mpt_one_speed",
    "MPT without distillation, one speed",
    "from the same sources, P and the factors on the target at one learning rate",
    "learning rate of P and the factors",
    (0.003, 0.01, 0.03, 0.1),
    functools.partial(train, factors_over_shared=1.0),
    sources_of=PLAIN,
)
MPT = Method(
    "mpt",
    "MPT",
    "as MPT without distillation, the sources taught by a teacher each",
    _TUNED,
    _RATES,
    train,
    functools.partial(train_source, distilled=True),
    prepare=teachers,
)
NEAREST = Method(
    "mpt_nearest",
    "MPT from the nearest source",
    "as MPT without distillation, from the factors of the source that `adapt` finds nearest; its "
    f"probe of about {PROBE_STEPS} steps of the factors comes on top",
    _TUNED,
    _RATES,
    functools.partial(train, from_="nearest"),
    sources_of=PLAIN,
    tuned_as=PLAIN,
)
LOWEST = Method(
    "mpt_lowest",
    "MPT from the source of the lowest loss",
    "as MPT without distillation, from the factors of the source under whose prompt the rows to "
    "train on have the lowest loss: `adapt` evaluates them under each",
    _TUNED,
    _RATES,
    functools.partial(train, from_="lowest_loss"),
    sources_of=PLAIN,
    tuned_as=PLAIN,
)
FROZEN = Method(
    "mpt_frozen_1",
    "MPT, P frozen, R = 1",
    "from MPT without distillation's sources, the factors alone: R · (L + d) numbers",
    "learning rate of the factors",
    (0.03, 0.1, 0.3, 1.0),
    functools.partial(train, shared=False),
    sources_of=PLAIN,
)
FROZEN_LOWEST = Method(
    "mpt_frozen_1_lowest",
    "MPT from the source of the lowest loss, P frozen, R = 1",
    "the same, the factors alone",
    "learning rate of the factors",
    (0.03, 0.1, 0.3, 1.0),
    functools.partial(train, shared=False, from_="lowest_loss"),
    sources_of=PLAIN,
    tuned_as=FROZEN,
)
FROZEN_4 = Method(
    "mpt_frozen_4",
    "MPT, P frozen, R = 4",
    "the same, with three ranks more that start at nothing",
    "learning rate of the factors",
    (0.03, 0.1, 0.3, 1.0),
    functools.partial(train, shared=False, ranks=4),
    sources_of=PLAIN,
)
LONG = Method(
    "mpt_100",
    "MPT without distillation, L = 100",
    "as MPT without distillation, with 100 virtual tokens",
    _TUNED,
    _RATES,
    train,
    train_source,
    source_tuned_as=PLAIN,
    virtual_tokens=100,
)
AFTER = Method(
    "mpt_after",
    "MPT without distillation, after the text",
    "as MPT without distillation, all prompts after the text, before its last token",
    _TUNED,
    _RATES,
    train,
    functools.partial(train_source, position="after"),
    source_tuned_as=PLAIN,
)
