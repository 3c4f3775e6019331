"""Forgetting: the numbers by hand, and the callback that watches it during `fit`."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.analysis import ForgettingMonitor, forgetting, task_scores
from keras_mpt.analysis.task_logs import tasks_and_measures
from tests import tiny
from tests.analysis import models
from tests.marks import only_eager, slow_on_tensorflow

NAN = float("nan")


def product(measures, tasks):
    """The names of all logs, sorted as `evaluate` sorts them."""
    return sorted([*measures, *(f"{task}_{m}" for task in tasks for m in measures)])


@pytest.mark.parametrize(
    ("measures", "tasks"),
    [
        (["loss"], ["a"]),
        (["accuracy", "loss"], ["tone", "topic"]),
        (["accuracy", "loss"], ["a", "a_b", "b"]),
        (["accuracy", "loss"], ["loss", "my_loss"]),
        (["accuracy", "loss", "my_loss", "weighted_accuracy"], ["t_0", "t_1"]),
    ],
)
def test_tasks_are_found_in_names_of_logs(measures, tasks):
    names = product(measures, tasks)
    for given in (names, [*names, "learning_rate"]):
        found, found_measures = tasks_and_measures(given)
        assert sorted(found) == tasks and found_measures == measures


def test_tasks_of_different_kinds_have_measures_of_their_own():
    results = {
        "loss": 1.0,
        "nli_loss": 0.5,
        "nli_accuracy": 0.75,
        "sts_b_loss": 2.0,
        "sts_b_mae": 3,
    }
    assert tasks_and_measures(results) == (["nli", "sts_b"], ["loss", "accuracy", "mae"])
    assert task_scores(results) == {"nli": 0.75}
    assert task_scores(results, "loss") == {"nli": 0.5, "sts_b": 2.0}


def test_logs_without_tasks_have_none():
    assert tasks_and_measures(["accuracy", "loss", "learning_rate"]) == ([], [])


def test_scores_of_tasks():
    results = {"loss": 1.0, "accuracy": 0.5, "a_loss": 2.0, "a_accuracy": 0.25}
    assert task_scores(results) == {"a": 0.25}
    assert task_scores(results, "loss") == {"a": 2.0}


def test_forgetting_by_hand():
    earlier = [{"a": 0.5, "b": 0.9}, {"a": 0.75, "b": 0.8, "c": NAN}, {"a": NAN, "d": 0.1}]
    now = {"a": 0.25, "b": 1.0, "c": 0.5, "new": 0.5}
    found = forgetting(earlier, now)
    assert list(found) == ["a", "b"]
    np.testing.assert_allclose(list(found.values()), [0.5, -0.1])
    found = forgetting(earlier, now, mode="min")  # A loss of a fell, one of b rose.
    np.testing.assert_allclose(list(found.values()), [-0.25, 0.2])
    assert forgetting(earlier[0], {"a": 0.25}) == {"a": 0.25}
    assert np.isnan(forgetting({"a": 0.5}, {"a": NAN})["a"])


def data(model):
    """Rows and labels of two tasks."""
    x = tiny.inputs(model.backbone, rows=12)
    return {
        "tone": ({k: v[:5] for k, v in x.items()}, np.array([0, 1, 1, 0, 1])),
        "topic": ({k: v[5:] for k, v in x.items()}, np.array([2, 1, 0, 0, 1, 2, 0])),
    }


@pytest.fixture(scope="module")
def start():
    """A model compiled once for all tests, and its weights."""
    model = models.randomized(models.make(num_tasks=2, task_names=["tone", "topic"]))
    return model, model.get_weights()


@pytest.fixture
def model(start):
    """The model at its start."""
    return restarted(*start)


def restarted(model, values):
    """The model with these weights, and a fresh optimizer that has a state."""
    model.set_weights(values)
    metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9), loss, metrics=metrics)
    return model


def fit(model, *callbacks, **kwargs):
    """Two epochs on the second task's rows.

    They are not shuffled: on PyTorch each evaluation draws from the generator that shuffles them.
    """
    x, y = data(model)["topic"]
    keras.utils.set_random_seed(0)
    options = {"batch_size": 3, "epochs": 2, "shuffle": False, "verbose": 0}
    options["callbacks"] = list(callbacks)
    return model.fit({**x, "task_ids": "topic"}, y, **options | kwargs).history


def evaluated(model, metric="accuracy"):
    """The scores of all tasks in one call."""
    rows = data(model)
    x = {k: np.concatenate([x[k] for x, _ in rows.values()]) for k in rows["tone"][0]}
    ids = [name for name, (_, y) in rows.items() for _ in y]
    labels = np.concatenate([y for _, y in rows.values()])
    results = model.evaluate({**x, "task_ids": ids}, labels, verbose=0, return_dict=True)
    return task_scores(results, metric)


def assert_equal_scores(found, expected):
    """The same tasks with the same scores."""
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)


class AllAtOnce(keras.callbacks.Callback):
    """What the monitor should find, by one evaluation of all tasks' rows."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_epoch_end(self, epoch, logs=None):
        """Evaluates."""
        self.found.append(evaluated(self.model, "loss"))


def test_it_scores_each_task_before_and_after_each_epoch(model):
    first, expected = evaluated(model, "loss"), AllAtOnce()
    monitor = ForgettingMonitor(data(model), metric="loss")
    fit(model, monitor, expected)
    assert monitor.mode == "min" and monitor.epochs == [0, 1, 2]
    for found, wanted in zip(monitor.scores, [first, *expected.found], strict=True):
        assert_equal_scores(found, wanted)
    assert_equal_scores(monitor.scores[-1], evaluated(model, "loss"))
    lost = monitor.forgetting()
    best = min(scores["tone"] for scores in monitor.scores[:-1])
    np.testing.assert_allclose(lost["tone"], monitor.scores[-1]["tone"] - best)
    # The first task's rows were not trained on, and yet P changed beneath it.
    assert monitor.scores[-1]["tone"] != monitor.scores[0]["tone"]


@slow_on_tensorflow
def test_training_is_the_same_bit_for_bit_with_it(start):
    x, y = data(start[0])["tone"]
    validation, runs = ({**x, "task_ids": "tone"}, y), []
    for monitors in ([], [ForgettingMonitor(data(start[0]))]):
        model = restarted(*start)
        history = fit(model, *monitors, validation_data=validation)
        variables = [*model.weights, *model.optimizer.variables]
        runs.append((history, [ops.convert_to_numpy(v) for v in variables]))
    (history, variables), (with_history, with_variables) = runs
    assert "val_tone_loss" in history and history.keys() == with_history.keys()
    for name, values in history.items():
        np.testing.assert_array_equal(with_history[name], values, err_msg=name)
    for found, expected in zip(with_variables, variables, strict=True):
        np.testing.assert_array_equal(found, expected)


@only_eager
def test_its_table_goes_on_when_a_task_is_added():
    model = models.randomized(models.make(num_tasks=1, task_names=["tone"]))
    rows = data(model)
    monitor = ForgettingMonitor({"tone": rows["tone"]}, each_epoch=False)
    x, y = rows["tone"]
    model.fit({**x, "task_ids": "tone"}, y, epochs=2, verbose=0, callbacks=[monitor])
    model.add_task("topic")
    monitor.data["topic"] = rows["topic"]
    fit(model, monitor)
    assert monitor.epochs == [0, 2, 2, 4]
    assert [list(scores) for scores in monitor.scores] == [["tone"]] * 2 + [["tone", "topic"]] * 2
    # Adding a task left the first one as it was.
    assert monitor.scores[2]["tone"] == monitor.scores[1]["tone"]
    assert_equal_scores(monitor.scores[-1], evaluated(model))
    best = max(scores["tone"] for scores in monitor.scores[:3])
    assert monitor.forgetting()["tone"] == best - monitor.scores[3]["tone"]


@only_eager
def test_it_takes_text():
    model = models.single()
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2, task_names=["tone", "topic"]
    )
    model = keras_mpt.prompt_tune(
        model.backbone, config, num_classes=2, preprocessor=model.preprocessor
    )
    texts, labels = ["good the goal", "bad", "vote vote good"], np.array([1, 0, 1])
    pairs = (texts, texts[::-1])
    monitor = ForgettingMonitor({"tone": (texts, labels), "topic": (pairs, labels)}, metric="loss")
    model.fit({"text": texts, "task_ids": ["tone"] * 3}, labels, verbose=0, callbacks=[monitor])
    for name, x in {"tone": texts, "topic": pairs}.items():
        results = model.evaluate(
            {"text": x, "task_ids": [name] * 3}, labels, verbose=0, return_dict=True
        )
        np.testing.assert_allclose(monitor.scores[-1][name], results["loss"], rtol=1e-6)


def test_bad_input_of_functions():
    for call, error in (
        (lambda: forgetting({"a": 1}, {"a": 1}, mode="best"), "`mode` should be 'max' or 'min'. "
         "Received: mode='best'"),
        (
            lambda: forgetting([{"b": 1}, {"a": NAN}], {"a": 1}),
            "`earlier` should have scores of tasks that `now` has too. Received: earlier with "
            "['a', 'b'] and now with ['a']",
        ),
        (
            lambda: forgetting([], {"a": 1}),
            "`earlier` should have scores of tasks that `now` has too. Received: earlier with [] "
            "and now with ['a']",
        ),
        (
            lambda: task_scores({"loss": 1.0, "a_loss": 1.0}),
            "`results` should hold 'accuracy' and each task's, such as 'tone_accuracy'. Received: "
            "results with ['loss', 'a_loss']",
        ),
        (lambda: ForgettingMonitor({}), "`data` should be a dict of task name to (x, y), with at "
         "least one task. Received: data={}"),
        (lambda: ForgettingMonitor({"a": [1, 2, 3]}), "`data` should hold (x, y) for each task. "
         "Received: for task 'a' a list"),
        (lambda: ForgettingMonitor({"a": (1, 2)}, mode="best"), "`mode` should be 'auto', 'max' "
         "or 'min'. Received: mode='best'"),
    ):  # fmt: skip
        with pytest.raises(ValueError) as raised:
            call()
        assert str(raised.value) == error


def test_bad_input_of_fit_comes_before_the_first_step(model, start):
    for monitor, error in (
        (
            ForgettingMonitor({"tonee": data(model)["tone"]}),
            "`data` should hold tasks of the model, ['tone', 'topic']. Received: data with "
            "['tonee']",
        ),
        (
            ForgettingMonitor(data(model), metric="f1"),
            "`metric` should be one of ['accuracy', 'loss'], which the model reports. Received: "
            "metric='f1'",
        ),
    ):
        with pytest.raises(ValueError) as raised:
            fit(model, monitor)
        assert str(raised.value) == error
        assert monitor.scores == []
        for found, expected in zip(model.get_weights(), start[1], strict=True):
            np.testing.assert_array_equal(found, expected)
