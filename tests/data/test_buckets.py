"""Rows of like length in one batch: the same rows, dealt anew."""

import json

import numpy as np
import pytest

import keras_mpt
from keras_mpt.data import buckets
from keras_mpt.data.task_rows import TaskRows
from tests.data.mixes import next_epoch, rows_of_task, values

SIZES, WIDTH = {"tone": 60, "topic": 90, "intent": 70}, 40
SAMPLINGS = [{}, {"max_tasks_per_batch": 2}]
every_sampling = pytest.mark.parametrize("sampling", SAMPLINGS, ids=["mixed", "sampled"])


def lengths(value):
    """The length of the row that a value names, from 1 to `WIDTH`."""
    return 1 + np.asarray(value) * 37 % WIDTH


def datasets(sizes=SIZES):
    """Rows that can be told apart, of very different lengths; those of "topic" are long."""
    found = {}
    for k, (name, size) in enumerate(sizes.items()):
        value = 100 * k + np.arange(size)
        mask = (np.arange(WIDTH) < lengths(value)[:, None]).astype("int32")
        found[name] = ({"token_ids": mask * value[:, None], "padding_mask": mask}, value)
    return found


def mix(bucket_by_length=True, **kwargs):
    """A mix of the rows above, in batches of 4."""
    kwargs = {"batch_size": 4, "seed": 1, "bucket_by_length": bucket_by_length, **kwargs}
    return keras_mpt.TaskMix(kwargs.pop("datasets", None) or datasets(), **kwargs)


def columns(batches):
    """How many columns a model computes if it cuts each batch to its longest row."""
    return sum(int(x["padding_mask"].sum(axis=1).max()) for x, _ in batches)


@every_sampling
def test_epochs_hold_the_same_rows_with_less_padding(sampling):
    plain, dealt = mix(False, **sampling), mix(**sampling)
    for _ in range(2):
        wanted, found = next_epoch(plain), next_epoch(dealt)
        assert sorted(values(found)) == sorted(values(wanted))
        assert values(found) != values(wanted)
        assert columns(found) < 0.8 * columns(wanted)
        for x, y in found:  # Rows stay whole.
            np.testing.assert_array_equal(x["padding_mask"].sum(axis=1), lengths(y))
            np.testing.assert_array_equal(x["token_ids"].max(axis=1), y)


def test_batches_of_a_pool_by_hand(monkeypatch):
    """Of the pool's rows by length, four at a time, whichever batch they are."""
    monkeypatch.setattr(buckets, "POOL", 5)
    steps = 13  # Two pools of five, and one of three.
    drawn = lengths(values(next_epoch(mix(False, steps=steps))))
    wanted = [np.sort(drawn[i : i + 20]).reshape(5, 4).tolist() for i in (0, 20)]
    found = [np.sort(lengths(y)).tolist() for _, y in next_epoch(mix(steps=steps))]
    assert [sorted(found[i : i + 5]) for i in (0, 5)] == wanted
    assert found[:5] != wanted[0]  # Not from short to long.


def test_each_pool_holds_the_tasks_shares():
    for weights, share in (("uniform", [1 / 3] * 3), ([2, 1, 1], [0.5, 0.25, 0.25])):
        found = values(next_epoch(mix(weights=weights, steps=2 * buckets.POOL)))
        for half in np.split(np.array(found), 2):
            np.testing.assert_allclose(np.bincount(half // 100) / len(half), share, atol=0.01)


def test_sampled_batches_keep_their_tasks():
    def tasks(batches):
        return [np.sort(y // 100).tolist() for _, y in batches]

    wanted, found = (next_epoch(mix(b, max_tasks_per_batch=2)) for b in (False, True))
    assert tasks(found) == tasks(wanted)
    for k in range(3):
        assert sorted(rows_of_task(found, k)) == sorted(rows_of_task(wanted, k))


def test_rows_of_one_length_come_by_chance():
    """Among the batches, and within them, or a batch would hold one task's rows."""
    same = datasets()
    for x, _ in same.values():
        x["padding_mask"][:] = 1
    orders = [values(next_epoch(mix(datasets=same, seed=seed))) for seed in (0, 1)]
    assert orders[0] != orders[1]
    batches = np.array(orders[0]).reshape(-1, 4)
    assert len({len(set(batch // 100)) for batch in batches}) > 1


@pytest.mark.parametrize("keeps_tasks", [False, True])
def test_short_batches_come_no_earlier_than_long_ones(keeps_tasks):
    """Each length's mean place, over many seeds, is the middle."""
    keys, places = np.stack([np.arange(64) % 2, np.arange(64)], axis=1), []
    for seed in range(400):
        dealt = buckets.BucketedRows(range(64), keys, 4, 16, seed, keeps_tasks)
        order = [dealt[i] for i in range(64)]
        assert sorted(order) == list(range(64))
        places.append(np.argsort(order))
    np.testing.assert_allclose(np.mean(places, axis=0), 31.5, atol=5 * 18.5 / 400**0.5)


@every_sampling
def test_the_seed_alone_decides_and_any_batch_can_be_asked_for(sampling):
    first, again, other = (mix(seed=seed, **sampling) for seed in (1, 1, 2))
    wanted = values(next_epoch(first))
    backwards = [again[i] for i in reversed(range(len(again)))]
    assert values(reversed(backwards)) == wanted
    assert values(next_epoch(other)) != wanted


@every_sampling
def test_it_goes_on_with_the_batches_of_an_unbroken_run(sampling, monkeypatch):
    monkeypatch.setattr(buckets, "POOL", 3)  # Places before, within and at the end of a pool.
    unbroken, resumed = (mix(steps=8, **sampling) for _ in range(2))
    expected = [[y.tolist() for _, y in next_epoch(unbroken)] for _ in range(2)]
    for epoch in (1, 0):
        for step in (7, 0, 2, 3):
            resumed.start_at(epoch, step)
            rest = [[y.tolist() for _, y in next_epoch(resumed)] for _ in range(epoch, 2)]
            assert rest == [expected[epoch][step:], *expected[epoch + 1 :]]


@every_sampling
@pytest.mark.parametrize("count", [2, 4])
def test_parts_one_after_another_are_the_whole_batches(sampling, count):
    whole, parts = mix(**sampling), [mix(shard=(i, count), **sampling) for i in range(count)]
    wanted, found = next_epoch(whole), [next_epoch(part) for part in parts]
    for step, (_, y) in enumerate(wanted):
        together = np.concatenate([batches[step][1] for batches in found])
        np.testing.assert_array_equal(together, y)


def test_runs_with_and_without_are_two():
    plain, dealt = mix(False).fingerprint(), mix().fingerprint()
    assert dealt == {**plain, "bucket_by_length": True}
    assert json.loads(json.dumps(dealt)) == dealt


def test_texts_go_by_their_words():
    """A word of up to six bytes is one, as a mark is; a longer one is more."""
    counts = {"": 0, "a good film.": 4, "sixsix sevens!": 3, "evenings": 2, "Tür": 1, "电影很好": 2}
    texts = np.array([[text, ""] for text in counts])
    tasks = {"a": TaskRows({"text": texts}, None, None)}
    assert buckets.with_lengths(tasks)[0][:, 1].tolist() == list(counts.values())
    texts = {"a": (["x" * n for n in (1, 30, 2, 31)], [0, 1, 2, 3]),
             "b": ([("x" * n, "ü") for n in (1, 28, 2, 29)], [4, 5, 6, 7])}  # fmt: skip
    batches = next_epoch(keras_mpt.TaskMix(texts, 4, bucket_by_length=True))
    assert sorted(sorted(y.tolist()) for _, y in batches) == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_encoders_and_decoders_tokens_count_together():
    sizes = np.array([[1, 9], [9, 1], [1, 1], [2, 1]])
    masks = [(np.arange(9) < n[:, None]).astype("int32") for n in sizes.T]
    names = ("encoder_padding_mask", "decoder_padding_mask")
    data = {"a": (dict(zip(names, masks, strict=True)), np.arange(4))}
    batches = next_epoch(keras_mpt.TaskMix(data, 2, bucket_by_length=True))
    assert sorted(sorted(y.tolist()) for _, y in batches) == [[0, 1], [2, 3]]


def test_padding_on_the_left_is_no_length():
    mask = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    assert buckets.last_used(mask).tolist() == [3, 1, 0, 4]


@pytest.mark.parametrize("value", [1, "yes", None])
def test_a_flag_that_is_none(value):
    with pytest.raises(ValueError) as raised:
        mix(value)
    assert str(raised.value) == (
        f"`bucket_by_length` should be True or False. Received: bucket_by_length={value!r}"
    )


def test_rows_without_lengths():
    x = {"token_ids": np.ones((4, 3), "int32")}
    with pytest.raises(ValueError) as raised:
        keras_mpt.TaskMix({"a": (x, np.zeros(4))}, bucket_by_length=True)
    assert str(raised.value) == (
        "`bucket_by_length` should be False where rows have neither text nor a 'padding_mask' "
        "(N, S), by which their lengths differ. Received: bucket_by_length=True and task 'a' with "
        "inputs ['token_ids', 'task_ids']"
    )
