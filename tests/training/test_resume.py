"""A run that is interrupted and started again comes to what an unbroken one comes to."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from safetensors import safe_open

from keras_mpt import ResumeTraining
from keras_mpt.training.run_state import FILE_NAME
from tests.marks import IS_EAGER, only_eager, slow_on_jax, slow_on_tensorflow
from tests.training import runs
from tests.training.runs import EPOCHS, STEPS


def header(directory):
    """What a state says of itself, and its arrays' names."""
    with safe_open(directory / FILE_NAME, "numpy") as file:
        return json.loads(file.metadata()["keras_mpt"]), list(file.keys())


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The outcome of a run that nothing stopped."""
    model = runs.make_model()
    history = runs.fit(model, tmp_path_factory.mktemp("unbroken") / "run")
    return runs.outcome(model, history)


@slow_on_tensorflow
def test_the_run_is_one_that_could_differ(unbroken):
    """Dropout, seeds that move, and metrics that change from epoch to epoch."""
    arrays, log = unbroken
    assert len([name for name in arrays if name.startswith("seed")]) == 3
    assert np.ptp(log["logs"]["loss"]) > 1e-3
    assert {"val_loss", "tone_loss", "topic_accuracy", "top"} <= log["logs"].keys()
    other = runs.make_model()
    for variable in other.non_trainable_variables:
        if "seed_generator" in variable.path:
            variable.assign([5, 5])
    keras.utils.set_random_seed(1)
    losses = other.fit(runs.make_mix(), epochs=1, verbose=0).history["loss"]
    assert losses[0] != log["logs"]["loss"][0]


@slow_on_tensorflow
def test_killed_and_resumed_in_fresh_processes(unbroken, tmp_path):
    """Killed in the second epoch, and later in the third: states are two steps apart.

    Where a process compiles for long it is killed once: a state says nothing of the one before it.
    """
    command = [sys.executable, "-W", "error:Your input", "-m", "tests.training.runs"]
    again = [(6, 9, [2, 4])] * IS_EAGER
    for stop, code, place in ((9, 9, [1, 3]), *again, (0, 0, [EPOCHS, 0])):
        done = subprocess.run(
            [*command, str(tmp_path), "run", str(stop)],
            env={**os.environ, "PYTHONHASHSEED": str(stop)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr[-2000:]
        about, _ = header(tmp_path / "run")
        assert [about["epoch"], about["step"]] == place
    with np.load(tmp_path / "run.npz") as file:
        arrays = dict(file)
    runs.assert_equal((arrays, json.loads((tmp_path / "run.json").read_text())), unbroken)


def interrupted(directory, stop, **kwargs):
    """A run that an exception ends."""
    with pytest.raises(runs.Interrupted):
        runs.fit(runs.make_model(), directory, stop, **kwargs)


@pytest.mark.parametrize(
    ("stop", "save_freq", "place"),
    [(2 * STEPS + 1, 1, [2, 1])]
    + [(4, 3, [0, 3]), (STEPS, 100, None), (STEPS + 3, "epoch", [1, 0])] * IS_EAGER,
)
def test_interrupted_anywhere(stop, save_freq, place, unbroken, tmp_path):
    interrupted(tmp_path / "run", stop, save_freq=save_freq)
    if place is None:
        assert not (tmp_path / "run").exists()
    else:
        about, names = header(tmp_path / "run")
        assert [about["epoch"], about["step"]] == place
        assert any(n.startswith("metrics") for n in names) == (place[1] > 0)
    model = runs.make_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # That data run out is no news to users.
        history = runs.fit(model, tmp_path / "run", save_freq=save_freq)
    runs.assert_equal(runs.outcome(model, history), unbroken)


@only_eager
def test_the_same_model_and_mix_go_on_in_one_process(unbroken, tmp_path):
    """As after Ctrl-C in a notebook."""
    model, mix = runs.make_model(), runs.make_mix()
    with pytest.raises(runs.Interrupted):
        runs.fit(model, tmp_path / "run", STEPS + 4, mix=mix)
    history = runs.fit(model, tmp_path / "run", mix=mix)
    runs.assert_equal(runs.outcome(model, history), unbroken)


@only_eager
@pytest.mark.parametrize("with_state", [True, False])
def test_two_interruptions_of_an_epoch_in_one_process(with_state, unbroken, tmp_path):
    """The next `fit` counts the whole epoch's batches, not those that the second one had left."""
    model, mix = runs.make_model(), runs.make_mix()
    for stop in (STEPS + 3, 1):
        with pytest.raises(runs.Interrupted):
            runs.fit(model, tmp_path / "run", stop, mix=mix, save_freq=1)
    assert mix.within_epoch and len(mix) < STEPS
    if with_state:
        history = runs.fit(model, tmp_path / "run", mix=mix)
        runs.assert_equal(runs.outcome(model, history), unbroken)
    else:
        steps = []
        counting = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda i, logs=None: steps.append(i)
        )
        model.fit(mix, epochs=2, callbacks=[counting], verbose=0)
        assert steps == [*range(STEPS), *range(STEPS)]


@only_eager
def test_a_finished_run_runs_no_step_more_unless_epochs_are_added(unbroken, tmp_path):
    runs.fit(runs.make_model(), tmp_path / "run", epochs=EPOCHS - 1)
    model = runs.make_model()
    runs.assert_equal(runs.outcome(model, runs.fit(model, tmp_path / "run")), unbroken)
    again = runs.make_model(seed=1)
    again.backbone.set_weights(model.backbone.get_weights())
    history = runs.fit(again, tmp_path / "run", stop=1)
    runs.assert_equal(runs.outcome(again, history), unbroken)
    again.fit(runs.make_mix(), epochs=1, verbose=0)  # `fit` alone starts at epoch 0 again.
    assert again.history.epoch == [0]


class StopsIn(keras.callbacks.Callback):
    """Sets `stop_training` at a step, or at the end of an epoch."""

    def __init__(self, epoch, step=None):
        super().__init__()
        self.at = (epoch, step)

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Stops in the middle."""
        if self.at == (self.epoch, batch):
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Stops at the end."""
        if self.at == (epoch, None):
            self.model.stop_training = True


@only_eager
def test_a_run_that_a_callback_stopped_stays_stopped(tmp_path):
    """As `EarlyStopping` stops one."""
    first, second = runs.make_model(), runs.make_model()
    logs = runs.fit(first, tmp_path / "run", callbacks=[StopsIn(1)])
    assert logs.epoch == [0, 1]
    again = runs.fit(second, tmp_path / "run", stop=1)
    assert (again.epoch, again.history) == (logs.epoch, logs.history)
    for a, b in zip(first.trainable_variables, second.trainable_variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


@slow_on_jax
@only_eager
def test_the_best_weights_are_those_of_the_same_script_again(tmp_path):
    """`EarlyStopping` puts them back at the end of a run that it did not stop, too."""

    def trained(name, epochs, with_best=True, **kwargs):
        """The weights after a run whose best epoch, by a metric that falls, is the first."""
        monitor = {"monitor": "loss", "mode": "max", "patience": 9}
        early = keras.callbacks.EarlyStopping(**monitor, restore_best_weights=True)
        model = runs.make_model()
        callbacks = [early] if with_best else []
        runs.fit(model, tmp_path / name, callbacks=callbacks, epochs=epochs, **kwargs)
        return [ops.convert_to_numpy(v) for v in model.trainable_variables]

    best = trained("run", epochs=2)
    assert header(tmp_path / "run")[0]["stopped"] is False
    again = trained("run", epochs=2, stop=1)  # Not one step more.
    # More epochs go on from the last one all the same.
    longer = trained("run", epochs=3, with_best=False)
    unbroken = trained("unbroken", epochs=3, with_best=False)
    for a, b, c, d in zip(best, again, longer, unbroken, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(c, d)
        assert np.abs(a - c).max() > 0


@only_eager
def test_a_run_that_a_callback_stopped_in_an_epoch_goes_on_there(unbroken, tmp_path):
    """As one with a limit of time."""
    runs.fit(runs.make_model(), tmp_path / "run", callbacks=[StopsIn(1, 2)], save_freq="epoch")
    assert [header(tmp_path / "run")[0][name] for name in ("epoch", "step")] == [1, 3]
    model = runs.make_model()
    history = runs.fit(model, tmp_path / "run")
    runs.assert_equal(runs.outcome(model, history), unbroken)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras refuses it on PyTorch")
@slow_on_tensorflow
def test_several_steps_per_execution(tmp_path):
    """States stand between executions; the last one of an epoch is shorter here."""
    whole = runs.make_model(steps_per_execution=2)
    wanted = runs.outcome(whole, runs.fit(whole, tmp_path / "whole", save_freq=1))
    with pytest.raises(runs.Interrupted):  # Stops count executions: three in an epoch.
        runs.fit(runs.make_model(steps_per_execution=2), tmp_path / "run", 4, save_freq=1)
    assert [header(tmp_path / "run")[0][name] for name in ("epoch", "step")] == [1, 2]
    model = runs.make_model(steps_per_execution=2)
    history = runs.fit(model, tmp_path / "run", save_freq=1)
    runs.assert_equal(runs.outcome(model, history), wanted)


@only_eager
def test_workers_read_the_same(unbroken, tmp_path):
    interrupted(tmp_path / "run", STEPS + 3, mix=runs.make_mix(workers=2))
    model = runs.make_model()
    history = runs.fit(model, tmp_path / "run", mix=runs.make_mix(workers=2))
    runs.assert_equal(runs.outcome(model, history), unbroken)


@only_eager
def test_frozen_weights_are_not_written(tmp_path):
    interrupted(tmp_path / "run", 2)
    model = runs.make_model()
    with safe_open(tmp_path / "run" / FILE_NAME, "numpy") as file:
        shapes = {name: file.get_tensor(name).shape for name in file.keys()}  # noqa: SIM118
    for i, variable in enumerate(model.trainable_variables):
        assert shapes.pop(f"trained/{i}") == tuple(variable.shape)
    assert not any(name.startswith("trained/") for name in shapes)
    assert {v for n, v in shapes.items() if n.startswith("others/")} == {(2,)}
    own = {n for n in shapes if n.startswith("generator/")}
    assert bool(own) == (keras.backend.backend() == "torch")


@only_eager
def test_a_model_around_ours_is_resumed_too(tmp_path):
    """A plain Keras model, whose running statistics are not frozen."""

    def make():
        inner = runs.make_model()
        names = ("token_ids", "padding_mask")
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
        inputs["task_ids"] = keras.Input((), dtype="int32", name="task_ids")
        normalized = keras.layers.BatchNormalization()(inner(inputs))
        model = keras.Model(inputs, keras.layers.Dense(3)(normalized))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
        return model

    def fit(model, directory, stop):
        mix = runs.make_mix()
        callbacks = [ResumeTraining(directory, mix, 2), runs.Stop(stop, runs.interrupt)]
        model.fit(mix, epochs=2, shuffle=False, callbacks=callbacks, verbose=0)
        return [ops.convert_to_numpy(v) for v in model.variables], model.history.history

    wanted = fit(make(), tmp_path / "whole", 0)
    with pytest.raises(runs.Interrupted):
        fit(make(), tmp_path / "run", STEPS + 3)
    found = fit(make(), tmp_path / "run", 0)
    for a, b in zip(found[0], wanted[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert found[1] == wanted[1]
