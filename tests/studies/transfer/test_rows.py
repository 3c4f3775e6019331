"""Batches of token arrays."""

import numpy as np

from studies.transfer.rows import Rows, Split, by_length, cropped, training_batches

# Rows of 2, 5, 1 and 3 tokens; the first token is the row's number.
LENGTHS = np.array([2, 5, 1, 3])


def rows(index=(0, 1, 2, 3)):
    mask = (np.arange(8) < LENGTHS[:, None]).astype("int32")
    x = {"token_ids": mask * (np.arange(4) + 10)[:, None], "padding_mask": mask}
    return Rows(Split(x, np.arange(4)), np.array(index))


def test_crop_ends_with_the_longest_row_and_leaves_other_arrays():
    x = cropped({**rows().x, "task_ids": np.arange(4)})
    assert x["token_ids"].shape == x["padding_mask"].shape == (4, 5)
    np.testing.assert_array_equal(x["task_ids"], np.arange(4))
    np.testing.assert_array_equal(x["token_ids"], rows().x["token_ids"][:, :5])


def test_batches_use_every_row_before_any_again():
    batches = list(training_batches(rows(), batch_size=2, steps=6, seed=0))
    labels = np.concatenate([y for _, y in batches])
    for start in (0, 4, 8):
        np.testing.assert_array_equal(np.sort(labels[start : start + 4]), np.arange(4))
    for x, y in batches:
        np.testing.assert_array_equal(x["token_ids"][:, 0], y + 10)
        assert x["token_ids"].shape == (2, LENGTHS[y].max())
    again = list(training_batches(rows(), batch_size=2, steps=6, seed=0))
    np.testing.assert_array_equal(labels, np.concatenate([y for _, y in again]))


def test_rows_that_fill_no_batch_are_a_batch():
    (_, y), (_, more) = training_batches(rows(), batch_size=32, steps=2, seed=0)
    assert sorted(y) == sorted(more) == [0, 1, 2, 3]


def test_a_remainder_waits_for_the_next_batch():
    batches = training_batches(rows([0, 1, 3]), batch_size=2, steps=3, seed=0)
    labels = np.concatenate([y for _, y in batches])
    assert sorted(labels[:3]) == sorted(labels[3:]) == [0, 1, 3]


def test_a_pool_deals_rows_out_by_their_lengths():
    batches = list(training_batches(rows(), batch_size=2, steps=8, seed=0, pool=2))
    for start in range(0, 8, 2):
        pairs = [tuple(sorted(y)) for _, y in batches[start : start + 2]]
        # Of 1 and 2 tokens, of 3 and 5.
        assert sorted(pairs) == [(0, 2), (1, 3)]
    assert {x["token_ids"].shape for x, _ in batches} == {(2, 2), (2, 5)}
    # Which come first is drawn.
    assert len({tuple(sorted(batches[start][1])) for start in range(0, 8, 2)}) == 2
    # A pool never holds a row twice, however many batches it may have.
    wider = list(training_batches(rows(), batch_size=2, steps=8, seed=0, pool=100))
    for (_, y), (_, more) in zip(batches, wider, strict=True):
        np.testing.assert_array_equal(y, more)


def test_results_come_back_in_the_rows_own_order():
    widths = []

    def first_tokens(x):
        widths.append(x["token_ids"].shape[1])
        return x["token_ids"][:, 0]

    np.testing.assert_array_equal(by_length(first_tokens, rows([3, 1, 2, 0]), 2), [13, 11, 12, 10])
    assert widths == [2, 5]
