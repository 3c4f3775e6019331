"""Whatever breaks `fit`, `evaluate` or `predict` off, a model has what its last whole step left."""

import keras
import numpy as np
import pytest
from keras import ops

from tests import tiny
from tests.fitting.breaking import BATCH_HOOKS, Counting, Stop, StopAt, counted, values, variables
from tests.models.classifiers import make

Y = np.array([0, 1, 1, 2])
# Keras is slow to begin a run on TensorFlow, where nothing is taken out of a model.
IS_SLOW = keras.backend.backend() == "tensorflow"
ERRORS = [Stop] if IS_SLOW else [KeyboardInterrupt, Stop, ValueError]


def rows(model, start, stop):
    """Some of four rows, and their labels."""
    x = {**tiny.inputs(model.backbone), "task_ids": np.array([0, 1, 0, 1])}
    return {name: value[start:stop] for name, value in x.items()}, Y[start:stop]


def fit(model, *callbacks):
    """Two epochs of two batches, in their order."""
    given = {"epochs": 2, "callbacks": list(callbacks), "verbose": 0}
    return model.fit(*rows(model, 0, 4), batch_size=2, shuffle=False, **given)


class Case:
    """One model, for all of them compiled once, and what it is after 0 to 4 steps."""

    def __init__(self):
        keras.utils.set_random_seed(0)
        self.model = make("heads")
        self.model.optimizer.build(self.model.trainable_variables)
        self.after = [values(self.model)]
        self.logits = [self.predict()]
        for i in range(4):
            start = 2 * (i % 2)
            self.model.train_on_batch(*rows(self.model, start, start + 2))
            self.after.append(values(self.model))
            self.logits.append(self.predict())

    def predict(self):
        return self.model.predict(rows(self.model, 0, 4)[0], batch_size=2, verbose=0)

    def fresh(self):
        """The model as it was before its first step."""
        for variable, value in zip(variables(self.model), self.after[0], strict=True):
            variable.assign(value)
        return self.model

    def assert_after(self, steps):
        """The model has all the values that whole steps give, and computes with them."""
        for value, expected in zip(values(self.model), self.after[steps], strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(self.predict(), self.logits[steps], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("hook", "at", "steps"),
    [
        ("on_train_batch_begin", 1, 0),
        ("on_train_batch_begin", 2, 1),
        ("on_train_batch_end", 1, 1),
        ("on_train_batch_end", 3, 3),
        ("on_epoch_begin", 2, 2),
        ("on_epoch_end", 1, 2),
    ],
)
def test_a_callback_breaks_fit_off(case, error, hook, at, steps):
    with pytest.raises(error):
        fit(case.fresh(), StopAt(hook, at, error))
    case.assert_after(steps)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("hook", "at"), [(hook, at) for hook in BATCH_HOOKS[2:] for at in ([2] if IS_SLOW else [1, 2])]
)
def test_a_callback_breaks_evaluate_or_predict_off(case, error, hook, at):
    model = case.fresh()
    given = {"batch_size": 2, "verbose": 0, "callbacks": [StopAt(hook, at, error)]}
    x, y = rows(model, 0, 4)
    with pytest.raises(error):
        model.predict(x, **given) if "predict" in hook else model.evaluate(x, y, **given)
    case.assert_after(0)


def test_validation_breaks_fit_off(case):
    model = case.fresh()
    x, y = rows(model, 0, 4)
    with pytest.raises(Stop):
        given = {"validation_data": (x, y), "callbacks": [StopAt("on_test_batch_end")]}
        model.fit(x, y, batch_size=2, shuffle=False, verbose=0, **given)
    case.assert_after(2)


def test_a_stream_breaks_off(case):
    model = case.fresh()

    def batches():
        yield rows(model, 0, 2)
        raise Stop("no more")

    with pytest.raises(BaseException, match="no more"):
        model.fit(batches(), steps_per_epoch=4, verbose=0)
    # Some backends read a batch ahead.
    steps = int(ops.convert_to_numpy(model.optimizer.iterations))
    case.assert_after(steps)


def test_it_goes_on_after_breaking_off(case):
    model = case.fresh()
    with pytest.raises(Stop):
        fit(model, StopAt("on_train_batch_end", 2))
    model.fit(*rows(model, 0, 4), batch_size=2, shuffle=False, verbose=0)
    case.assert_after(4)


def test_a_run_adds_no_variables(case):
    """Those of metrics and optimizers are not the model's own."""
    model = case.fresh()
    before = [v.path for v in model.variables]
    fit(model)
    model.evaluate(*rows(model, 0, 4), verbose=0)
    assert [v.path for v in model.variables] == before


@pytest.mark.parametrize("breaks_at", [0, 1, 3])
def test_an_error_amid_an_update(breaks_at):
    """Of a step on PyTorch, which Python runs line by line."""
    model = make("heads")
    for variable in model.trainable_variables:
        variable.assign(ops.zeros(variable.shape))
    model.compile(Counting(), run_eagerly=keras.backend.backend() != "jax")
    model.fit(*rows(model, 0, 2), verbose=0)
    assert counted(model) == {1.0}
    model.optimizer.breaks_at = breaks_at
    with pytest.raises(Stop):
        model.train_on_batch(*rows(model, 0, 2))
    assert counted(model) == {1.0}


def test_values_can_be_read_and_set_while_fit_runs(case):
    """On JAX, too, where Keras would take them away or put old ones back."""

    class Halves(keras.callbacks.Callback):
        seen = []

        def on_train_batch_end(self, batch, logs=None):
            model = case.model  # Not `self.model`, which Keras has hand over the values on JAX.
            self.seen.append(ops.convert_to_numpy(model.trainable_variables[0]))
            model.trainable_variables[0].assign(self.seen[-1] / 2)

    model = case.fresh()
    model.fit(*rows(model, 0, 2), batch_size=2, verbose=0, callbacks=[Halves()])
    np.testing.assert_allclose(Halves.seen[0], case.after[1][0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(values(model)[0], Halves.seen[0] / 2)
