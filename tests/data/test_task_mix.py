"""Batches of several tasks: how often each task comes, in which order its rows, and the errors."""

import sys

import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.data.mixes import SIZES, datasets, next_epoch, rows_of_task, values


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ("uniform", [1, 1, 1]),
        ("proportional", [6, 18, 3]),
        # The square root of the rows, the default temperature being 2.
        ("temperature", np.sqrt([6, 18, 3])),
        ([1, 2, 5], [1, 2, 5]),
        (np.array([0.5, 0.25, 0.25]), [2, 1, 1]),
    ],
    ids=["uniform", "proportional", "temperature", "list", "array"],
)
def test_each_task_comes_as_often_as_its_weight_says(weights, shares):
    mix = keras_mpt.TaskMix(datasets(), batch_size=8, weights=weights, steps=11)
    batches = next_epoch(mix)
    counts = np.bincount(np.concatenate([x["task_ids"] for x, _ in batches]), minlength=3)
    expected = 8 * 11 * np.array(shares) / sum(shares)
    assert counts.sum() == 8 * 11
    # Grain mixes by a fixed pattern, so a count is off by rounding at most.
    assert np.abs(counts - expected).max() < 1


def test_a_row_has_its_own_task_s_id_and_target():
    for x, y in next_epoch(keras_mpt.TaskMix(datasets(), batch_size=4, seed=3)):
        assert x["task_ids"].dtype == "int32"
        np.testing.assert_array_equal(x["task_ids"], y // 100)
        np.testing.assert_array_equal(x["token_ids"], np.stack([y, y], axis=1))


def test_every_row_comes_once_before_any_comes_twice_and_then_in_another_order():
    mix = keras_mpt.TaskMix(datasets(), batch_size=4, steps=36, weights="proportional")
    batches = next_epoch(mix)
    for k, size in enumerate(SIZES.values()):
        rows = rows_of_task(batches, k)
        passes = [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]
        assert len(passes) >= 2
        assert all(sorted(one) == list(range(size)) for one in passes)
        assert len({tuple(one) for one in passes}) > 1


def test_without_shuffle_rows_come_in_their_order():
    batches = next_epoch(keras_mpt.TaskMix(datasets(), batch_size=4, steps=30, shuffle=False))
    for k, size in enumerate(SIZES.values()):
        rows = rows_of_task(batches, k)
        assert rows == [i % size for i in range(len(rows))]


def test_the_same_seed_gives_the_same_batches_and_another_does_not():
    first, again, other = (keras_mpt.TaskMix(datasets(), 4, seed=s) for s in (5, 5, 6))
    expected = values(next_epoch(first))
    assert values(next_epoch(again)) == expected
    assert values(next_epoch(other)) != expected


def test_tasks_are_not_shuffled_alike():
    sizes = {"a": 12, "b": 12}
    batches = next_epoch(keras_mpt.TaskMix(datasets(sizes), 4))
    assert rows_of_task(batches, 0) != rows_of_task(batches, 1)


def test_the_next_epoch_goes_on_where_this_one_stopped():
    short = keras_mpt.TaskMix(datasets(), batch_size=4, steps=3)
    both = keras_mpt.TaskMix(datasets(), batch_size=4, steps=6)
    assert values(next_epoch(short)) + values(next_epoch(short)) == values(next_epoch(both))


def test_an_end_without_a_beginning_is_no_epoch():
    """Keras calls `on_epoch_end` before the first epoch too."""
    mix = keras_mpt.TaskMix(datasets(), batch_size=4)
    first = values([mix[0]])
    mix.on_epoch_end()
    assert values([mix[0]]) == first


def test_an_epoch_is_all_tasks_rows_by_default():
    assert len(keras_mpt.TaskMix(datasets(), batch_size=4)) == 7  # 27 rows, rounded up.
    assert len(keras_mpt.TaskMix(datasets(), batch_size=9)) == 3
    assert len(keras_mpt.TaskMix(datasets(), batch_size=9, steps=5)) == 5


TEXTS, SECONDS = ["a", "bb", "ccc"], ["first", "x", "another one"]


@pytest.mark.parametrize("form", ["list", "dict of list", "pair", "dict of pair"])
def test_texts_and_pairs_of_texts(form):
    pair = "pair" in form
    x = (TEXTS, SECONDS) if pair else TEXTS
    x = {"text": x} if "dict" in form else x
    mix = keras_mpt.TaskMix({"a": (x, [0, 1, 2]), "b": (x, [0, 1, 2])}, batch_size=4)
    seen = set()
    for x, y in next_epoch(mix):
        assert x["text"].shape == ((4, 2) if pair else (4,))
        for text, label in zip(x["text"].tolist(), y, strict=True):
            assert text == ([TEXTS[label], SECONDS[label]] if pair else TEXTS[label])
            seen.add(int(label))
    assert seen == {0, 1, 2}


def test_weights_come_with_their_rows():
    data = datasets()
    x, y = data["tone"]
    data["tone"] = (x, y, y / 100 + 2)
    for _, y, weights in next_epoch(keras_mpt.TaskMix(data, batch_size=6)):
        np.testing.assert_array_equal(weights, np.where(y < 100, y / 100 + 2, 1.0))


ONE, FOUR_TOKENS = {"a": (["x"], [0])}, {"token_ids": np.ones((1, 4))}


@pytest.mark.parametrize(
    ("given", "kwargs", "error"),
    [
        ({}, {}, "`datasets` should hold at least one task. Received: datasets={}"),
        (
            {"a": ([], [])},
            {},
            "`datasets` should have rows, and one target per row, for each task. Received: task "
            "'a' with 0 targets and rows {'text': 0}",
        ),
        (
            {**ONE, "b": (["x", "y"], [0, 1, 1])},
            {},
            "`datasets` should have rows, and one target per row, for each task. Received: task "
            "'b' with 3 targets and rows {'text': 2}",
        ),
        (
            {"a": ((["x", "y"], ["z"]), [0, 1])},
            {},
            "`datasets` should have rows, and one target per row, for each task. Received: task "
            "'a' with 2 targets and rows {'text': 2, 'second text': 1}",
        ),
        (
            {"a": (FOUR_TOKENS, [0]), "b": ({"token_ids": np.ones((1, 5))}, [0])},
            {},
            "`datasets` should have the same inputs and shapes for all tasks, to stand in one "
            "batch. Received: {'a': {'token_ids': (4,), 'task_ids': (), 'y': ()}, 'b': "
            "{'token_ids': (5,), 'task_ids': (), 'y': ()}}",
        ),
        (
            {**ONE, "b": (FOUR_TOKENS, [0])},
            {},
            "`datasets` should have the same inputs and shapes for all tasks, to stand in one "
            "batch. Received: {'a': {'text': (), 'task_ids': (), 'y': ()}, 'b': {'token_ids': "
            "(4,), 'task_ids': (), 'y': ()}}",
        ),
        *(
            (
                ONE,
                {"weights": weights},
                "`weights` should be 'uniform', 'proportional', 'temperature' or 1 positive "
                f"numbers. Received: weights={weights!r}",
            )
            for weights in ("unifrom", [], [1, 2], [0], [-1], [float("nan")], [float("inf")],
                            ["1"], None, 3.0)
        ),
        *(
            (ONE, {name: 0}, f"`{name}` should be a positive integer. Received: {name}=0")
            for name in ("batch_size", "steps")
        ),
        *(
            (
                ONE,
                {"temperature": temperature},
                "`temperature` should be a finite number above 0. Received: "
                f"temperature={temperature!r}",
            )
            for temperature in (0, -1.0, float("nan"), float("inf"), "2", None)
        ),
        *(
            (
                {**ONE, "b": ONE["a"], "c": ONE["a"]},
                {"max_tasks_per_batch": most},
                "`max_tasks_per_batch` should be None or an integer from 2 to 3 for 3 tasks and "
                f"batches of 32. Received: max_tasks_per_batch={most!r}",
            )
            for most in (4, 1, 0, -2, 2.0, "2", True)
        ),
        (
            {**ONE, "b": ONE["a"], "c": ONE["a"]},
            {"max_tasks_per_batch": 3, "batch_size": 2},
            "`max_tasks_per_batch` should be None or an integer from 2 to 2 for 3 tasks and "
            "batches of 2. Received: max_tasks_per_batch=3",
        ),
        (
            ONE,
            {"max_tasks_per_batch": 2},
            "`max_tasks_per_batch` should be None for 1 task and batches of 32. Received: "
            "max_tasks_per_batch=2",
        ),
        *(
            (ONE, {"seed": seed}, f"`seed` should be an integer, 0 or more. Received: seed={seed}")
            for seed in (-1, 1.5, None)
        ),
    ],
)  # fmt: skip
def test_errors(given, kwargs, error):
    with pytest.raises(ValueError) as raised:
        keras_mpt.TaskMix(given, **kwargs)
    assert str(raised.value) == error


def test_without_grain_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError) as raised:
        keras_mpt.TaskMix(ONE)
    assert str(raised.value) == "`TaskMix` needs Grain: `pip install keras-mpt[data]`."


def test_fit_sees_the_first_epochs_of_the_mix_and_nothing_else():
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2, task_names=["tone", "topic"]
    )
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=[2, 3])
    model.compile(keras.optimizers.SGD(0.5))
    start = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    x = tiny.inputs(model.backbone, rows=10)
    tasks = {
        "tone": ({k: v[:4] for k, v in x.items()}, [0, 1, 1, 0]),
        "topic": ({k: v[4:] for k, v in x.items()}, [2, 1, 0, 0, 1, 2]),
    }
    # The mixes first: they must not lose an epoch to the first `fit`, which builds the loss.
    mixes = [keras_mpt.TaskMix(tasks, 4, steps=2, seed=1, workers=n) for n in (0, 2)]
    by_hand = keras_mpt.TaskMix(tasks, 4, steps=2, seed=1)
    batches = next_epoch(by_hand) + next_epoch(by_hand)
    histories = []
    for data in (*mixes, (batch for batch in batches)):
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        fitted = model.fit(data, epochs=2, steps_per_epoch=2, shuffle=False, verbose=0)
        histories.append(fitted.history)
    assert {"topic_loss", "tone_accuracy"} <= histories[0].keys()
    for name, expected in histories[2].items():
        for found in histories[:2]:
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-6, err_msg=name)
