"""The paper's sampling: how many tasks a batch holds, which ones, and which of their rows."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import keras_mpt
from keras_mpt.data.sampling import SampledRows, draw_tasks, task_weights
from tests.data.mixes import MORE, SIZES, datasets, next_epoch, rows_of_task, values


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (2.0, [2, 4, 8]),
        (1, [4, 16, 64]),
        (3, [4 ** (1 / 3), 16 ** (1 / 3), 4]),
        (0.5, [16, 256, 4096]),
        (1e9, [1, 1, 1]),
    ],
)
def test_temperature_by_hand(temperature, expected):
    found = np.array(task_weights("temperature", temperature, [4, 16, 64]))
    expected = np.array(expected, "float64")
    np.testing.assert_allclose(found / found.sum(), expected / expected.sum(), rtol=1e-8)


def test_the_limit_of_t5_by_hand():
    """MNLI's, QQP's and SST-2's rows: of the first two 2**18 count."""
    sizes = [392_702, 363_846, 67_349]
    limited = [262_144, 262_144, 67_349]
    assert task_weights("proportional", 2.0, sizes, 2**18) == limited
    found = np.array(task_weights("temperature", 2.0, sizes, 2**18))
    np.testing.assert_allclose(found / found[0], np.sqrt(np.array(limited) / 2**18), rtol=1e-12)
    assert task_weights("proportional", 2.0, sizes, 400_000) == sizes
    mix = keras_mpt.TaskMix(datasets(), 4, "proportional", size_limit=5)
    assert mix.weights == mix.fingerprint()["weights"] == [5, 5, 3]


@pytest.mark.parametrize("weights", ["uniform", [1, 2, 3]])
def test_a_limit_with_nothing_to_limit_is_refused(weights):
    with pytest.raises(ValueError, match="`size_limit` should be left out where `weights` do not"):
        keras_mpt.TaskMix(datasets(), 4, weights, size_limit=5)
    with pytest.raises(ValueError, match="`size_limit` should be a positive integer. Received"):
        keras_mpt.TaskMix(datasets(), 4, "proportional", size_limit=0)


@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("temperature", [1e-9, 1e9])
def test_any_temperature_mixes(temperature, most):
    mix = keras_mpt.TaskMix(
        datasets(), 4, "temperature", temperature=temperature, max_tasks_per_batch=most
    )
    counts = np.bincount([v // 100 for v in values(next_epoch(mix))], minlength=3)
    if temperature < 1:
        assert counts.argmax() == 1  # The task of most rows.
    assert counts.sum() == 28


def chance(drawn, weights):
    """The chance of these tasks in this order, where one is drawn after another."""
    left, product = float(sum(weights)), 1.0
    for task in drawn:
        product *= weights[task] / left
        left -= weights[task]
    return product


def test_each_number_of_tasks_and_each_order_comes_as_often_as_its_chance():
    weights, most, draws = [1.0, 2.0, 3.0, 4.0], 3, 12000
    found = {}
    for batch in range(draws):
        drawn = tuple(draw_tasks(weights, most, (7, batch)).tolist())
        found[drawn] = found.get(drawn, 0) + 1
    expected = {
        drawn: chance(drawn, weights) / (most - 1)
        for count in range(2, most + 1)
        for drawn in itertools.permutations(range(4), count)
    }
    assert sum(expected.values()) == pytest.approx(1)
    assert found.keys() <= expected.keys()
    for drawn, p in expected.items():
        deviation = np.sqrt(draws * p * (1 - p))
        assert abs(found.get(drawn, 0) - draws * p) < 4 * deviation, drawn


def test_draws_are_the_same_everywhere():
    """Worked out once: they hold on every backend, and a resumed run needs them to stay."""
    drawn = [draw_tasks([1, 1, 1, 1, 1], 4, (3, batch)).tolist() for batch in range(6)]
    assert drawn == [[4, 3, 0, 1], [3, 2, 4, 1], [3, 4, 2, 1], [4, 0], [2, 1], [1, 4]]


@pytest.mark.parametrize("weights", ["uniform", "proportional", "temperature", [1, 5, 2]])
def test_a_batch_is_divided_evenly_over_its_tasks(weights):
    mix = keras_mpt.TaskMix(datasets(MORE), 7, weights, steps=40, max_tasks_per_batch=3)
    found = set()
    for x, y in next_epoch(mix):
        np.testing.assert_array_equal(x["task_ids"], y // 100)
        np.testing.assert_array_equal(x["token_ids"], np.stack([y, y], axis=1))
        counts = np.bincount(x["task_ids"])
        found.add(tuple(sorted(counts[counts > 0].tolist())))
    assert found == {(3, 4), (2, 2, 3)}


def test_a_batch_may_hold_as_many_tasks_as_rows():
    mix = keras_mpt.TaskMix(datasets(MORE), 2, steps=20, max_tasks_per_batch=2)
    assert all(len(set(x["task_ids"].tolist())) == 2 for x, _ in next_epoch(mix))


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_row_comes_once_before_any_comes_twice(shuffle):
    mix = keras_mpt.TaskMix(
        datasets(), 5, "proportional", steps=12, shuffle=shuffle, max_tasks_per_batch=3
    )
    batches = next_epoch(mix) + next_epoch(mix)
    for k, size in enumerate(SIZES.values()):
        rows = rows_of_task(batches, k)
        passes = [rows[i : i + size] for i in range(0, len(rows) - size + 1, size)]
        assert len(passes) >= 2
        assert all(sorted(one) == list(range(size)) for one in passes)
        assert (len({tuple(one) for one in passes}) > 1) == shuffle
        if not shuffle:
            assert passes[0] == list(range(size))


def test_epochs_are_cuts_of_one_order():
    short, long = (keras_mpt.TaskMix(datasets(), 4, steps=n, max_tasks_per_batch=3) for n in (3, 9))
    assert sum((values(next_epoch(short)) for _ in range(3)), []) == values(next_epoch(long))


def test_the_seed_alone_decides():
    first, again, other = (
        keras_mpt.TaskMix(datasets(), 4, seed=s, max_tasks_per_batch=2) for s in (5, 5, 6)
    )
    expected = values(next_epoch(first))
    assert values(next_epoch(again)) == expected
    assert values(next_epoch(other)) != expected


def test_rows_are_the_same_in_whatever_order_they_are_asked_for():
    sizes = {"weights": [1, 2, 3], "max_tasks": 3, "batch_size": 4, "steps": 5, "seed": 2}
    expected = [SampledRows(**sizes)[i] for i in range(100)]
    order = np.random.default_rng(0).permutation(100).tolist()
    rows = SampledRows(**sizes)
    assert [rows[i] for i in order] == [expected[i] for i in order]
    rows = SampledRows(**sizes)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(rows.__getitem__, order)) == [expected[i] for i in order]
    # Each task's stream is read from its start without a gap.
    for k in range(3):
        places = [place for task, place in expected if task == k]
        assert sorted(places) == list(range(len(places)))
