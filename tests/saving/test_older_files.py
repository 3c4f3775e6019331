"""Files that an earlier version wrote: they open, and mean what they meant."""

import shutil

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.marks import IS_EAGER, only_eager
from tests.saving import make_older_files as older_files
from tests.saving.make_older_files import FOLDER, MODELS
from tests.training import runs

NAMES = [build.__name__ for build in MODELS]


def assert_as_saved(model, name):
    """The model gives what it gave when it was saved, on TensorFlow."""
    # A call, not `predict`: nothing is compiled for it.
    found = keras.tree.flatten(model(older_files.inputs_of(model)))
    with np.load(FOLDER / f"{name}.npz") as saved:
        for output, wanted in zip(found, saved.values(), strict=True):
            output = ops.convert_to_numpy(output)
            scale = np.abs(wanted[wanted > -1e8]).max()
            np.testing.assert_allclose(output, wanted, rtol=0, atol=1e-5 * scale)


# JAX compiles each one for long; which variables there are does not depend on the backend.
ON_JAX = ("text_classifier", "causal")


@pytest.mark.parametrize("name", ON_JAX if keras.backend.backend() == "jax" else NAMES)
def test_a_model_opens(name):
    is_own_backend = keras.backend.backend() == "tensorflow"
    # An optimizer's state is only good on the backend that saved it.
    model = keras.saving.load_model(FOLDER / f"{name}.keras", compile=is_own_backend)
    assert_as_saved(model, name)
    if name == "seq2seq":  # Frozen by hand as it was saved.
        assert not model.trainable_variables
    if name == "causal" and is_own_backend:
        assert type(model.sampler).__name__ == "GreedySampler"
        assert int(model.optimizer.iterations) == 1


@only_eager
@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_opens(name):
    """On the same backbone, by itself and into a model that is there."""
    saved = keras.saving.load_model(FOLDER / f"{name}.keras", compile=False)
    base = saved.backbone
    loaded = keras_mpt.load_adapter(base, FOLDER / f"{name}_adapter")
    if name == "own_head":  # Its output layer is the keras-hub task's, and in no adapter.
        loaded.frozen_head.set_weights(saved.frozen_head.get_weights())
    assert type(loaded) is type(saved)
    assert_as_saved(loaded, name)
    for variable in loaded.prompt.weights:
        variable.assign(np.zeros(variable.shape))
    loaded.load_adapter(FOLDER / f"{name}_adapter")
    assert_as_saved(loaded, name)


def test_a_run_goes_on(tmp_path):
    """It takes the state on; on PyTorch it ends where a run that was not interrupted ends."""
    shutil.copytree(FOLDER / f"run_{keras.backend.backend()}", tmp_path / "run")
    model = older_files.resumed_model()
    resumed = runs.fit(model, tmp_path / "run")
    assert resumed.epoch == list(range(runs.EPOCHS))
    if not IS_EAGER:  # What compiles for long need not run twice.
        return
    whole = older_files.resumed_model()
    unbroken = runs.fit(whole, tmp_path / "whole")
    assert unbroken.epoch == resumed.epoch
    for ours, theirs in zip(model.trainable_variables, whole.trainable_variables, strict=True):
        # Another processor than the one that wrote it may round otherwise.
        np.testing.assert_allclose(
            ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs), rtol=1e-4, atol=1e-6
        )
