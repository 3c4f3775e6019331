"""Small trainings, the same on one device and on several, and what they come to."""

from __future__ import annotations

import keras
import numpy as np

import keras_mpt
from tests import tiny
from tests.models.classifiers import randomized

NAMES, CLASSES = ["tone", "topic"], [2, 3]


def make(kind):
    """A compiled model, with the same numbers each time: a classifier or a language model."""
    keras.utils.set_random_seed(0)
    given = {"num_virtual_tokens": 3, "num_tasks": 2, "num_ranks": 2, "task_names": NAMES}
    if kind == "classifier":
        config = keras_mpt.MultitaskPromptTuningConfig(task_type="SEQ_CLS", **given)
        model = keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=CLASSES)
    else:
        config = keras_mpt.MultitaskPromptTuningConfig(task_type="CAUSAL_LM", **given)
        model = keras_mpt.prompt_tune(tiny.backbone("gpt2", dropout=0.0), config)
    randomized(model).compile(keras.optimizers.Adam(0.02))
    return model


def rows(kind, count=11):
    """Inputs and targets of both tasks' rows: with batches of 4, the last one has 3 rows."""
    rng = np.random.default_rng(0)
    ids = rng.integers(2, tiny.VOCABULARY, (count, 5)).astype("int32")
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    task_ids = np.arange(count, dtype="int32") % 2
    x["task_ids"] = task_ids
    if kind == "classifier":
        return x, rng.integers(0, 2, count)
    # Rows have other numbers of targets that count, 1 to 5: no part's mean is that of all.
    weights = (np.arange(5) <= rng.integers(0, 5, (count, 1))).astype("float32")
    return x, np.roll(ids, -1, 1), weights


def mix(kind, **kwargs):
    """The same rows as a mix, whose batches are whole."""
    x, *targets = rows(kind)
    tasks = {}
    for k, name in enumerate(NAMES):
        of_task = x["task_ids"] == k
        given = {n: v[of_task] for n, v in x.items() if n != "task_ids"}
        tasks[name] = (given, *(values[of_task] for values in targets))
    return keras_mpt.TaskMix(tasks, **{"batch_size": 4, "seed": 3, **kwargs})


def arrays(model, kind):
    """What a training on arrays comes to, whose last batch is a partial one."""
    x, y, *weights = rows(kind)
    given = {"batch_size": 4, "verbose": 0}
    weighted = {**given, "sample_weight": weights[0] if weights else None}
    history = model.fit(x, y, epochs=2, shuffle=False, **weighted).history
    found = {f"history {name}": values for name, values in history.items()}
    logs = model.evaluate(x, y, return_dict=True, **weighted)
    found |= {f"evaluate {name}": value for name, value in logs.items()}
    return {**found, "predict": model.predict(x, **given)}


def mixed(model, kind, callbacks=(), **kwargs):
    """What a training on a mix comes to."""
    data = mix(kind, **kwargs)
    callbacks = [make_callback(data) for make_callback in callbacks]
    history = model.fit(data, epochs=2, verbose=0, callbacks=callbacks).history
    return {f"mix {name}": values for name, values in history.items()}


class Interrupted(Exception):
    """What a run is cut by."""


def resumed(kind, folder, **kwargs):
    """As `mixed`, of a run that is cut amid its second epoch and gone on with; and its model."""

    def resume(data):
        return keras_mpt.ResumeTraining(folder / "run", data, save_freq=1)

    def stop(data):
        def count(batch, logs):
            left.pop()
            if not left:
                raise Interrupted

        left = [None] * 4
        return keras.callbacks.LambdaCallback(on_train_batch_end=count)

    try:
        mixed(make(kind), kind, [resume, stop], **kwargs)
    except Interrupted:
        model = make(kind)
        return model, mixed(model, kind, [resume], **kwargs)
    raise AssertionError("it was not cut")


def weights(model):
    """The values of all of a model's variables but the optimizer's."""
    found = {f"trained {v.path}": v for v in model.trainable_variables}
    found |= {f"frozen {i}": v for i, v in enumerate(model.backbone.weights)}
    return {name: np.asarray(keras.ops.convert_to_numpy(v)) for name, v in found.items()}


def assert_same(found, wanted):
    """Losses, logits and trained weights agree to 1e-6; the backbone to the bit."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if "frozen" in name:
            np.testing.assert_array_equal(found[name], value, err_msg=name)
        else:
            np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6, err_msg=name)


def write(file, outcome):
    """Keeps what a process has come to for another one; "/" would be a folder in the archive."""
    np.savez(file, **{name.replace("/", "|"): value for name, value in outcome.items()})


def read(file):
    """What `write` kept."""
    with np.load(file) as found:
        return {name.replace("|", "/"): found[name] for name in found}


def of_mix(outcome, with_logs):
    """What of an outcome was there after the mix: logs where they are asked for, and weights."""
    logs = {name: v for name, v in outcome.items() if with_logs and name.startswith("mix ")}
    after = {name.removeprefix("mixed "): v for name, v in outcome.items() if "mixed " in name}
    return logs | after
