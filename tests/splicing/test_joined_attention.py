"""Attention over a shared prompt and a row's own tokens, against one attention over both."""

import numpy as np
import pytest
from keras import ops

from keras_mpt.splicing.joined_attention import as_prefix, attend_after
from keras_mpt.splicing.row_blocks import number_of_blocks, row_blocks

ROWS, QUERIES, LENGTH, OWN, HEADS, DIM = 9, 3, 7, 5, 6, 4


def expected(query, before, own, rows, mask, scale):
    """In float64, each row with a copy of its prompt's keys and values."""
    keys, values = (
        np.concatenate([np.repeat(t, HEADS // t.shape[2], 2) for t in (b[rows], o)], 1)
        for b, o in zip(before, own, strict=True)
    )
    scores = np.einsum("bshd,bnhd->bhsn", query, keys) * scale
    is_seen = np.concatenate([np.ones((ROWS, QUERIES, LENGTH), bool), mask], -1)
    scores = np.where(is_seen[:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhsn,bnhd->bshd", weights / weights.sum(-1, keepdims=True), values)


def drawn(number, heads, own_heads):
    rng = np.random.default_rng(0)
    # Scores of some tens: without the largest taken off, exponentials would be too large.
    query = 20 * rng.normal(size=(ROWS, QUERIES, HEADS, DIM))
    before = [rng.normal(size=(number, LENGTH, heads, DIM)) for _ in range(2)]
    own = [rng.normal(size=(ROWS, OWN, own_heads, DIM)) for _ in range(2)]
    mask = rng.random((ROWS, QUERIES, OWN)) < 0.5
    mask[0] = False  # A row that sees its prompt alone.
    return query, before, own, rng.integers(0, number, ROWS), mask


def found(query, before, own, rows, mask, scale, known):
    query, *tensors = (ops.convert_to_tensor(t.astype("float32")) for t in (query, *before, *own))
    number = before[0].shape[0]
    blocks = row_blocks(ops.convert_to_tensor(rows), number, QUERIES, rows if known else None)
    prefix = as_prefix(tensors[:2], blocks)
    given = query, *tensors[2:], ops.convert_to_tensor(mask), scale
    return ops.convert_to_numpy(attend_after(prefix, blocks, *given))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("number", "heads", "own_heads"), [(1, 2, 6), (2, 6, 6), (4, 2, 2), (9, 2, 6)]
)
def test_it_is_one_attention_over_both(number, heads, own_heads, known):
    query, before, own, rows, mask = drawn(number, heads, own_heads)
    wanted = expected(query, before, own, rows, mask, 0.5)
    made = found(query, before, own, rows, mask, 0.5, known)
    np.testing.assert_allclose(made, wanted, atol=1e-5)


def test_a_row_of_nan_is_nan_alone():
    query, before, own, rows, mask = drawn(3, 2, 6)
    wanted = found(query, before, own, rows, mask, 0.5, False)
    query[4] = np.nan
    made = found(query, before, own, rows, mask, 0.5, False)
    assert np.isnan(made[4]).all()
    others = np.arange(ROWS) != 4
    np.testing.assert_allclose(made[others], wanted[others], atol=1e-6)


@pytest.mark.parametrize("rows", [[2] * 9, [0, 1, 2] * 3, [3, 0, 0, 0, 0, 0, 0, 0, 1]])
@pytest.mark.parametrize("known", [False, True])
def test_each_row_is_in_a_block_of_its_prompt(rows, known):
    rows, number = np.array(rows), 4
    given = rows if known else None
    blocks = row_blocks(ops.convert_to_tensor(rows), number, 1, given)
    prompts, filled_by, places = map(ops.convert_to_numpy, blocks)
    size = filled_by.shape[1]
    assert len(prompts) == number_of_blocks(9, number, 1, given)
    np.testing.assert_array_equal(prompts[places // size], rows)
    np.testing.assert_array_equal(filled_by.reshape(-1)[places], np.arange(9))
    # What no row fills is a double of one with the same prompt: nothing else gets into a gradient.
    np.testing.assert_array_equal(rows[filled_by], np.repeat(prompts[:, None], size, 1))


def test_fewer_blocks_than_rows():
    assert number_of_blocks(64, 1) == 1
    assert number_of_blocks(64, 4) <= 16
    assert number_of_blocks(16, 4, known=np.arange(16) % 4) == 4
    assert number_of_blocks(5, 5) == 5
