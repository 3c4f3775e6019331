"""The best weights by the mean over tasks, and when a training is over."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mpt.recipes import BestWeights, StopWhenLearned
from tests.marks import only_torch
from tests.training import runs

pytestmark = only_torch  # Logs are handed to the callbacks by hand; fits are in test_recipes.py.


def after(callback, epochs, model=None):
    """Which epoch's weights a model has at the end, whose P is filled with the epoch's number."""
    model = runs.make_model() if model is None else model
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, logs in enumerate(epochs):
        for variable in model.trainable_variables:
            variable.assign(np.full(variable.shape, epoch, "float32"))
        callback.on_epoch_end(epoch, logs)
    callback.on_train_end()
    values = {float(x) for v in model.trainable_variables for x in ops.convert_to_numpy(v).ravel()}
    assert len(values) == 1
    return int(values.pop())


def logs(tone, topic, loss=1.0):
    """An epoch's logs; those of all rows would choose otherwise."""
    return {
        "accuracy": 1.0,
        "val_accuracy": -tone,
        "val_loss": loss,
        "val_tone_accuracy": tone,
        "val_topic_accuracy": topic,
        "val_tone_loss": loss,
        "val_topic_loss": loss + topic,
    }


EPOCHS = [logs(0.5, 0.5), logs(0.9, 0.2), logs(0.6, 0.6, 0.2), logs(0.1, 0.9, 0.3)]


@pytest.mark.parametrize(
    ("given", "best", "epoch"),
    [
        ((), 0.6, 2),
        (({"tone": "accuracy"},), 0.9, 1),
        (({"topic": "accuracy"},), 0.9, 3),
        (("loss",), 0.5, 2),
        (({"tone": "loss", "topic": "loss"},), 0.5, 2),
        (("accuracy", "min"), 0.5, 0),
        (({"tone": "accuracy", "topic": "loss"}, "max"), (0.9 + 1.2) / 2, 1),
    ],
)
def test_the_best_epoch_by_hand(given, best, epoch):
    callback = BestWeights(*given)
    assert after(callback, EPOCHS) == callback.best_epoch == epoch
    assert callback.best == pytest.approx(best)


def test_epochs_and_tasks_without_a_score_do_not_count():
    nothing = {"loss": 1.0, "accuracy": 1.0}
    one = {"val_topic_accuracy": 0.8, "val_accuracy": 0.8}
    astray = {**logs(0.1, 0.1), "val_tone_accuracy": float("nan")}
    assert after(BestWeights(), [astray, nothing, one, logs(0.7, 0.7), nothing]) == 2


def test_without_logs_of_tasks_all_rows_choose():
    assert after(BestWeights(), [{"val_accuracy": a} for a in (0.2, 0.4, 0.3)]) == 1


def test_a_second_fit_forgets_the_first():
    callback, model = BestWeights(), runs.make_model()
    after(callback, [logs(0.9, 0.9)], model)
    assert after(callback, [logs(0.1, 0.1), logs(0.2, 0.2)], model) == 1


def test_without_validation_it_warns_and_leaves_the_last():
    with pytest.warns(UserWarning, match="BestWeights has nothing to choose by"):
        assert after(BestWeights(), [{"loss": 1.0}] * 3) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("",), "`metric` should be the name of a metric, or a dict of task name to one. Received"),
        (({},), "`metric` should be the name of a metric, or a dict"),
        (("loss", "most"), "`mode` should be 'auto', 'max' or 'min'. Received: mode='most'"),
        (({"a": "loss", "b": "accuracy"},), "`mode` should be 'max' or 'min' where `metric` names"),
    ],
)
def test_wrong_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        BestWeights(*given)


def test_a_metric_or_a_task_that_there_is_not():
    with pytest.raises(ValueError, match=r"which it lacks \['f1'\]"):
        after(BestWeights("f1"), EPOCHS)
    with pytest.raises(ValueError, match=r"which it lacks \['tone_f1'\]"):
        after(BestWeights({"tone": "f1"}), EPOCHS)
    with pytest.raises(ValueError, match=r"`metric` should have tasks of the model, \['tone', 't"):
        after(BestWeights({"irony": "accuracy"}), EPOCHS)


@pytest.mark.parametrize(
    ("losses", "stopped"),
    [
        ([1, 0.05, 0.04, 0.04, 0.01], 3),
        ([0.04, 0.04, 0.06, 0.04, 0.04, 0.04], 5),
        ([0.06, 0.06, 0.06, 0.06], None),  # Flat, and not learned.
        ([0.01, float("nan"), 0.01, 0.01], None),
    ],
)
def test_it_stops_once_the_rows_are_learned(losses, stopped):
    callback, model = StopWhenLearned(loss=0.05, patience=3), keras.Sequential()
    callback.set_model(model)
    model.stop_training = False
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        assert not model.stop_training
        callback.on_epoch_end(epoch, {"loss": loss})
        if epoch == 1:  # A run that is interrupted and goes on comes to the same.
            state = callback.run_state()
            callback = StopWhenLearned(loss=0.05, patience=3)
            callback.set_model(model)
            callback.on_train_begin()
            callback.set_run_state(*state)
        if model.stop_training:
            break
    assert callback.stopped_epoch == stopped


def test_a_loss_that_nothing_is_below():
    with pytest.raises(ValueError, match="`loss` should be a number above 0. Received: loss=0"):
        StopWhenLearned(0)
    with pytest.raises(ValueError, match="`patience` should be a positive integer. Received"):
        StopWhenLearned(patience=0)
