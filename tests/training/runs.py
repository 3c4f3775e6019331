"""A small run of `fit` with dropout that can be cut anywhere, here or in a process of its own.

`python -m tests.training.runs FOLDER NAME STEP` trains in FOLDER/NAME, ends the process after
STEP steps as a kill would (never, where STEP is 0), and writes what the run came to as `NAME.npz`
and `NAME.json`.
"""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

import keras_mpt
from keras_mpt import ResumeTraining, two_speed_optimizer
from tests import tiny

STEPS, EPOCHS, NAMES = 5, 3, ["tone", "topic"]


def backbone():
    """An attention layer between two dropouts: one with a seed of its own and one without."""
    ids, mask = (keras.Input((None,), dtype="int32", name=n) for n in ("token_ids", "padding_mask"))
    embedding = keras.layers.Embedding(tiny.VOCABULARY, 8, embeddings_initializer="normal")
    tokens = keras.layers.Dropout(0.2)(embedding(ids))
    layer = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)
    states = layer(tokens, tokens, attention_mask=mask[:, None])
    states = keras.layers.Dropout(0.3, seed=7)(states)
    return keras.Model({"token_ids": ids, "padding_mask": mask}, tokens + states)


def make_model(seed=0, steps_per_execution=1, optimizer=None, **kwargs):
    """A compiled classifier with a head per task, and random factors."""
    keras.utils.set_random_seed(seed)
    kwargs = {"num_virtual_tokens": 3, "task_names": NAMES, "task_init": "normal", **kwargs}
    config = keras_mpt.MultitaskPromptTuningConfig(task_type="SEQ_CLS", num_tasks=2, **kwargs)
    model = keras_mpt.prompt_tune(backbone(), config, num_classes=[2, 3])
    schedule = keras.optimizers.schedules.CosineDecay(0.05, STEPS * EPOCHS)
    model.compile(
        optimizer or two_speed_optimizer(0.01, schedule, keras.optimizers.SGD(0.1, momentum=0.9)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")],
        steps_per_execution=steps_per_execution,
    )
    return model


def make_mix(**kwargs):
    """Two tasks' random rows."""
    rng = np.random.default_rng(0)
    tasks = {}
    for name, classes in zip(NAMES, (2, 3), strict=True):
        ids = rng.integers(2, tiny.VOCABULARY, (11, 5)).astype("int32")
        rows = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
        tasks[name] = (rows, rng.integers(0, classes, 11))
    return keras_mpt.TaskMix(tasks, **{"batch_size": 4, "steps": STEPS, "seed": 3, **kwargs})


class Stop(keras.callbacks.Callback):
    """Ends a run after some steps, counted from where this `fit` began."""

    def __init__(self, step, how):
        super().__init__()
        self.left = step
        self.how = how

    def on_train_batch_end(self, batch, logs=None):
        """One step less is left."""
        self.left -= 1
        if self.left == 0:
            self.how()


class Interrupted(Exception):
    """What a test interrupts a run with."""


def interrupt():
    """Ends `fit` as Ctrl-C would."""
    raise Interrupted


def fit(model, directory, stop=0, how=interrupt, mix=None, save_freq=2, callbacks=(), **kwargs):
    """Trains, as the same script would each time that it is started."""
    mix = make_mix() if mix is None else mix
    validation = make_mix(seed=4)[0]
    resume = ResumeTraining(directory, mix, save_freq)
    return model.fit(
        mix,
        validation_data=validation,
        callbacks=[*callbacks, resume, Stop(stop, how)],
        **{"epochs": EPOCHS, "verbose": 0, **kwargs},
    )


def outcome(model, history):
    """Every value that the run came to: arrays by name, and the log."""
    variables = [*model.trainable_variables, *model.optimizer.variables]
    arrays = {f"{i}": ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    seeds = [v for v in model.non_trainable_variables if "seed_generator" in v.path]
    arrays |= {f"seed {i}": ops.convert_to_numpy(v) for i, v in enumerate(seeds)}
    return arrays, {"epochs": history.epoch, "logs": history.history}


def assert_equal(found, wanted):
    """Two outcomes are the same, bit for bit."""
    assert found[0].keys() == wanted[0].keys()
    for name, value in wanted[0].items():
        np.testing.assert_array_equal(found[0][name], value, err_msg=name)
    assert found[1]["epochs"] == wanted[1]["epochs"] == list(range(EPOCHS))
    assert found[1]["logs"].keys() == wanted[1]["logs"].keys()
    for name, values in wanted[1]["logs"].items():  # NaN for a task that had no rows.
        np.testing.assert_array_equal(found[1]["logs"][name], values, err_msg=name)


def main(folder, name, stop):
    """Runs once."""
    model = make_model()
    history = fit(model, folder / name, stop, lambda: os._exit(9))
    arrays, log = outcome(model, history)
    np.savez(folder / f"{name}.npz", **arrays)
    (folder / f"{name}.json").write_text(json.dumps(log))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
