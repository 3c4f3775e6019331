"""All tasks' rows, to validate on."""

import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.data.mixes import SIZES, datasets
from tests.marks import slow_on_jax


def test_every_row_is_there_once_with_its_task():
    x, y = keras_mpt.stack_tasks(datasets())
    np.testing.assert_array_equal(y, np.concatenate([v for _, v in datasets().values()]))
    np.testing.assert_array_equal(x["token_ids"], np.stack([y, y], axis=1))
    np.testing.assert_array_equal(x["task_ids"], np.repeat(list(SIZES), list(SIZES.values())))


def test_pairs_and_rows_without_targets():
    (x,) = keras_mpt.stack_tasks(
        {"same": ((["a", "b"], ["c", "d"]), None), "reply": ((["e"], ["f"]),)}
    )
    assert x["text"].tolist() == [["a", "c"], ["b", "d"], ["e", "f"]]
    assert x["task_ids"].tolist() == ["same", "same", "reply"]


def test_weights_of_one_task_are_ones_for_the_others():
    data = {"tone": (["a", "b"], [0, 1], [2.0, 0.0]), "topic": (["c"], [2])}
    _, y, weights = keras_mpt.stack_tasks(data)
    assert (y.tolist(), weights.tolist()) == ([0, 1, 2], [2.0, 0.0, 1.0])


def setting():
    """A model of two tasks, and data of both."""
    backbone = tiny.backbone("bert", dropout=0.0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=3, num_tasks=2, task_names=["tone", "topic"], seed=0
    )
    model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
    inputs, rng = tiny.inputs(backbone, rows=12), np.random.default_rng(0)
    data = {
        "tone": ({k: v[:5] for k, v in inputs.items()}, rng.integers(0, 2, 5)),
        "topic": ({k: v[5:] for k, v in inputs.items()}, rng.integers(0, 3, 7)),
    }
    return model, data


@slow_on_jax
def test_validation_reports_each_task_as_evaluate_does():
    """Whatever order the tasks are in: their names tell them apart."""
    model, data = setting()
    mix = keras_mpt.TaskMix(data, batch_size=4, steps=2)
    backwards = dict(reversed(data.items()))
    logs = model.fit(
        mix, validation_data=keras_mpt.stack_tasks(backwards), validation_batch_size=12, verbose=0
    ).history
    for task, (x, y) in data.items():
        alone = model.evaluate({**x, "task_ids": task}, y, verbose=0, return_dict=True)
        for name in ("loss", "accuracy"):
            np.testing.assert_allclose(logs[f"val_{task}_{name}"][0], alone[name], rtol=1e-5)


def test_a_task_that_the_model_lacks():
    model, data = setting()
    x, y = keras_mpt.stack_tasks({"mood": data["tone"]})
    with pytest.raises(ValueError, match="`task_ids` should name a task: one of .'tone', 'topic'."):
        model.evaluate(x, y, verbose=0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "`datasets` should hold at least one task. Received: datasets={}"),
        ({"tone": ([], [])}, "`datasets` should have rows, and one target per row, for each task"),
        (
            {"tone": (["a"], [0]), "topic": (["b"], None)},
            "`datasets` should have the same inputs and shapes for all tasks",
        ),
        ([(["a"], [0])], "`datasets` should be a dict of task name to .x, y.. Received: .*list"),
        (
            {"tone": ["a", "b"]},
            "`datasets` should have .x, y., .x,. or .x, y, sample_weight. for each task. Received: "
            "task 'tone' with data of type list",
        ),
        ({"tone": (["a"], [0], [1.0, 2.0])}, "with 1 targets, 2 weights and rows {'text': 1}"),
        ({"tone": (["a"], None, [1.0])}, "`datasets` should have targets where there are weights"),
        ({"tone": (["a"], 0)}, "'tone' with 0 targets and rows {'text': 1}"),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=message):
        keras_mpt.stack_tasks(data)
