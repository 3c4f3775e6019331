"""Vanilla prompt tuning: a prompt and a head, from scratch on the target."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.transfer.job import HEAD_RATE, Job, Method, Trained, decay
from studies.transfer.rows import Inputs, Rows, by_length, training_batches


def train(job: Job) -> Trained:
    """Trains both by `fit`."""
    import keras

    import keras_mpt

    keras.utils.set_random_seed(job.seed)
    config = keras_mpt.PromptTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=job.virtual_tokens,
        prompt_tuning_init="SAMPLE_VOCAB",
        seed=job.seed,
    )
    model = keras_mpt.prompt_tune(
        job.bench.backbone, config, num_classes=job.task.num_classes, pooling="mean"
    )
    adam = keras.optimizers.Adam
    rates = keras.optimizers.OptimizerMap(
        adam(decay(HEAD_RATE, job.steps)), {".*prompt.*": adam(decay(job.rate, job.steps))}
    )
    model.compile(keras.optimizers.MultiOptimizer(rates), metrics=[])
    fit(model, job)
    return Trained(predictor(model, job.bench.batch_size), model.parameter_count())


def fit(model: Any, job: Job, task_ids: int | None = None) -> None:
    """`job.steps` steps on the job's batches; of one task where the model has tasks."""

    def batches() -> Any:
        given = training_batches(job.rows, job.batch_size, job.steps, job.seed)
        for x, y in given:
            yield _with_task(x, task_ids), y

    model.fit(batches(), steps_per_epoch=job.steps, epochs=1, verbose=0)


def predictor(model: Any, batch_size: int) -> Any:
    """The `predict` of a `Trained`, of a model of ours."""

    def predict(rows: Rows, task_ids: int | None = None) -> np.ndarray:
        def labels(x: Inputs) -> np.ndarray:
            return model.predict_on_batch(_with_task(x, task_ids)).argmax(axis=1)

        return by_length(labels, rows, batch_size)

    return predict


def _with_task(x: Inputs, task_ids: int | None) -> Inputs:
    if task_ids is None:
        return x
    return {**x, "task_ids": np.full(len(x["token_ids"]), task_ids, "int32")}


PROMPT = Method(
    "prompt",
    "prompt tuning",
    "a prompt of its own and a head, from scratch",
    "learning rate of the prompt",
    # One more than the rest, as the lowest of four was the best with 4 rows per class.
    (0.001, 0.003, 0.01, 0.03, 0.1),
    train,
)
