"""Multitask prompt tuning of keras_mpt: sources with or without teachers, then the target."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import Any

from studies.transfer.heads.methods.prompt import fit, predictor
from studies.transfer.job import HEAD_RATE, Job, Method, SourceJob, Trained, decay
from studies.transfer.rows import cropped
from studies.transfer.tasks import Task

# Factors multiply token embeddings whose numbers are near 0.05: a step of the same weight for the
# prompt is so many times as large.
FACTORS_OVER_SHARED = 10.0
TEACHER_RATE = 0.01
# Targets, and sources that have the same classes in the same order, by the tasks' descriptions.
SAME_CLASSES = {"cr": "sst2", "rte": "qnli", "mrpc": "qqp"}
_NEEDED = ("train_teachers", "Distillation", "two_speed_optimizer", "adapt")


def missing() -> str:
    """What keras_mpt has not got."""
    import keras_mpt

    return ", ".join(f"keras_mpt.{name}" for name in _NEEDED if not hasattr(keras_mpt, name))


def train_source(job: SourceJob, distilled: bool) -> Trained:
    """Trains the sources together, and saves them as an adapter in `job.folder`."""
    import keras

    import keras_mpt

    keras.utils.set_random_seed(job.seed)
    bench, names = job.bench, [task.name for task in job.tasks]
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=job.virtual_tokens,
        num_tasks=len(names),
        task_names=names,
        prompt_tuning_init="SAMPLE_VOCAB",
        seed=job.seed,
    )
    student = keras_mpt.prompt_tune(
        bench.backbone,
        config,
        num_classes=[task.num_classes for task in job.tasks],
        pooling="mean",
        tokenizer=bench.preprocessor.tokenizer,
    )
    model = keras_mpt.Distillation(student, teachers(job)) if distilled else student
    model.compile(_optimizer(job.rate, job.steps))
    model.fit(source_batches(job), verbose=0)
    student.save_adapter(job.folder, overwrite=True)
    predict = predictor(student, bench.batch_size)
    return Trained(lambda rows, task: predict(rows, task), student.parameter_count())


def source_batches(job: SourceJob) -> Any:
    """The mixed batches of the sources: the same for every method."""
    import keras_mpt

    class CroppedMix(keras_mpt.TaskMix):
        """As wide as the batch's longest row."""

        def __getitem__(self, index: int) -> Any:
            batch = super().__getitem__(index)
            return batch and (cropped(batch[0]), *batch[1:])

    datasets = {task.name: (task.train.x, task.train.y) for task in job.tasks}
    # The paper's sampling: how many tasks a batch holds is drawn, then which.
    return CroppedMix(
        datasets,
        batch_size=job.batch_size,
        steps=job.steps,
        seed=job.seed,
        max_tasks_per_batch=len(datasets),
    )


def teachers(job: SourceJob) -> dict[str, Any]:
    """The sources' teachers, trained where they are not there yet."""
    found = {}
    for task in job.tasks:
        found |= _teacher(job, task)
    return found


def _teacher(job: SourceJob, task: Task) -> Any:
    """One at a time: each has rows of its own length, and steps of its own number."""
    import keras

    import keras_mpt

    bench, rows = job.bench, task.train
    steps = job.teacher_epochs * -(-len(rows) // job.batch_size)
    return keras_mpt.train_teachers(
        bench.backbone,
        {task.name: (cropped(rows.x), rows.y)},
        job.teachers,
        keras_mpt.PromptTuningConfig(
            task_type="SEQ_CLS",
            num_virtual_tokens=job.virtual_tokens,
            prompt_tuning_init="SAMPLE_VOCAB",
            seed=job.seed,
        ),
        num_classes=task.num_classes,
        optimizer=lambda: keras.optimizers.Adam(decay(TEACHER_RATE, steps)),
        batch_size=job.batch_size,
        epochs=job.teacher_epochs,
        seed=job.seed,
        verbose=0,
        pooling="mean",
    )


def train(
    job: Job,
    named: Mapping[str, str] = types.MappingProxyType({}),
) -> Trained:
    """Adapts the sources' adapter to the target, from the source that is named for it if one is."""
    import keras

    import keras_mpt

    keras.utils.set_random_seed(job.seed)
    name = job.task.name
    model = keras_mpt.adapt(
        job.source,
        [name],
        base=job.bench.backbone,
        # A named source's head comes along.
        num_classes=None if name in named else [job.task.num_classes],
        from_=named.get(name, "average"),
    )
    model.compile(_optimizer(job.rate, job.steps), metrics=[])
    fit(model, job, task_ids=0)
    predict = predictor(model, job.bench.batch_size)
    return Trained(functools.partial(predict, task_ids=0), model.parameter_count())


def _optimizer(rate: float, steps: int) -> Any:
    import keras_mpt

    return keras_mpt.two_speed_optimizer(
        shared=decay(rate, steps),
        factors=decay(FACTORS_OVER_SHARED * rate, steps),
        head=decay(HEAD_RATE, steps),
    )


def _method(name: str, label: str, about: str, distilled: bool) -> Method:
    source = functools.partial(train_source, distilled=distilled)
    tuned = f"learning rate of P; the factors' is {FACTORS_OVER_SHARED:g} times that"
    prepare = teachers if distilled else None
    rates = (0.001, 0.003, 0.01, 0.03)
    return Method(name, label, about, tuned, rates, train, source, prepare, missing)


PLAIN = _method(
    "mpt_plain",
    "MPT without distillation",
    "sources trained together, then P and the average of their factors on the target",
    distilled=False,
)
MPT = _method(
    "mpt",
    "MPT",
    "the same, the sources taught by a teacher each",
    distilled=True,
)
NAMED = Method(
    "mpt_named",
    "MPT from a named source",
    "as MPT without distillation, but where a source has the target's classes ("
    + ", ".join(f"{source} those of {target}" for target, source in SAME_CLASSES.items())
    + "), from its factors and its head",
    PLAIN.tuned,
    PLAIN.rates,
    functools.partial(train, named=SAME_CLASSES),
    sources_of=PLAIN,
    tuned_as=PLAIN,
    missing=missing,
)
