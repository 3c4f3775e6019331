"""A mix that several processes read in parts."""

import json

import numpy as np
import pytest

import keras_mpt
from tests.data.mixes import MORE, datasets, next_epoch, values


@pytest.mark.parametrize("sampled", [None, 2], ids=["mixed", "sampled"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_parts_one_after_another_are_the_whole_batches(count, sampled):
    kwargs = {"batch_size": 8, "seed": 3, "max_tasks_per_batch": sampled}
    whole = keras_mpt.TaskMix(datasets(), **kwargs)
    parts = [keras_mpt.TaskMix(datasets(), shard=(i, count), **kwargs) for i in range(count)]
    for _ in range(2):
        wanted = next_epoch(whole)
        found = [next_epoch(part) for part in parts]
        assert [len(batches) for batches in found] == [len(wanted)] * count
        for step, (x, y) in enumerate(wanted):
            of_step = [batches[step] for batches in found]
            assert {len(part[1]) for part in of_step} == {8 // count}
            np.testing.assert_array_equal(np.concatenate([part[1] for part in of_step]), y)
            for name in x:
                together = np.concatenate([part[0][name] for part in of_step])
                np.testing.assert_array_equal(together, x[name])


def test_each_row_comes_once_among_all_parts():
    sizes = {"tone": 6, "topic": 18}
    kwargs = {"weights": "proportional", "batch_size": 4}
    parts = [keras_mpt.TaskMix(datasets(sizes), shard=(i, 2), **kwargs) for i in range(2)]
    seen = [value for part in parts for value in values(next_epoch(part))]
    assert sorted(seen) == [*range(6), *range(100, 118)]


def test_a_part_is_gone_on_with_where_the_whole_would_be():
    kwargs = {"batch_size": 4, "steps": 5, "shard": (1, 2), "max_tasks_per_batch": 3}
    unbroken, rest = (keras_mpt.TaskMix(datasets(MORE), **kwargs) for _ in range(2))
    wanted = [values(next_epoch(unbroken)) for _ in range(2)][1]
    rest.start_at(1, 3)
    assert values(next_epoch(rest)) == wanted[3 * 2 :]


def test_all_parts_have_the_fingerprint_of_the_whole():
    mixes = [keras_mpt.TaskMix(datasets(), 4, shard=shard) for shard in (None, (0, 2), (3, 4))]
    assert len({json.dumps(mix.fingerprint()) for mix in mixes}) == 1


@pytest.mark.parametrize(
    "shard", [(2, 2), (-1, 2), (0, 0), (0,), 1, "01", (0.0, 2), (True, 2), {"index": 0}]
)
def test_a_shard_that_is_none(shard):
    with pytest.raises(ValueError) as raised:
        keras_mpt.TaskMix(datasets(), 4, shard=shard)
    assert str(raised.value) == (
        "`shard` should be None or (index, count), with an index from 0 to count - 1. Received: "
        f"shard={shard!r}"
    )


def test_parts_that_would_differ_in_size():
    with pytest.raises(ValueError) as raised:
        keras_mpt.TaskMix(datasets(), 6, shard=[0, 4])
    assert str(raised.value) == (
        "`batch_size` should be a multiple of the 4 shards, whose parts of a batch are of one "
        "size. Received: batch_size=6 with shard=(0, 4)"
    )
