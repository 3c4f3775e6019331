"""All tasks' rows, to validate on."""

import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.data.mixes import SIZES, datasets


def test_every_row_is_there_once_with_its_task():
    x, y = keras_mpt.stack_tasks(datasets())
    np.testing.assert_array_equal(y, np.concatenate([v for _, v in datasets().values()]))
    np.testing.assert_array_equal(x["token_ids"], np.stack([y, y], axis=1))
    np.testing.assert_array_equal(x["task_ids"], np.repeat([0, 1, 2], list(SIZES.values())))
    assert x["task_ids"].dtype == "int32"


def test_pairs_and_rows_without_targets():
    (x,) = keras_mpt.stack_tasks(
        {"same": ((["a", "b"], ["c", "d"]), None), "reply": ((["e"], ["f"]),)}
    )
    assert x["text"].tolist() == [["a", "c"], ["b", "d"], ["e", "f"]]
    assert x["task_ids"].tolist() == [0, 0, 1]


def test_validation_reports_each_task_as_evaluate_does():
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
    mix = keras_mpt.TaskMix(data, batch_size=4, steps=2)
    logs = model.fit(
        mix, validation_data=keras_mpt.stack_tasks(data), validation_batch_size=12, verbose=0
    ).history
    for task, (x, y) in data.items():
        alone = model.evaluate({**x, "task_ids": task}, y, verbose=0, return_dict=True)
        for name in ("loss", "accuracy"):
            np.testing.assert_allclose(logs[f"val_{task}_{name}"][0], alone[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "`datasets` should hold at least one task. Received: datasets={}"),
        ({"tone": ([], [])}, "`datasets` should have rows, and one target per row, for each task"),
        (
            {"tone": (["a"], [0]), "topic": (["b"], None)},
            "`datasets` should have the same inputs and shapes for all tasks",
        ),
    ],
)
def test_bad_data(data, message):
    with pytest.raises(ValueError, match=message):
        keras_mpt.stack_tasks(data)
