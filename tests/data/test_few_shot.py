"""A few rows of each class: how many, which, in which form, and the errors."""

import numpy as np
import pytest

import keras_mpt
from keras_mpt.data.few_shot import few_shot

LABELS = np.array([2, 0, 1] * 8)  # Eight rows of each class.
ROWS = [f"row {r}" for r in range(24)]


@pytest.mark.parametrize("shots", [1, 3, 8])
def test_each_class_has_its_shots_and_each_row_its_label(shots):
    x, y = few_shot(ROWS, LABELS, shots)
    assert np.bincount(y).tolist() == [shots] * 3
    assert len(set(x)) == 3 * shots
    assert y.tolist() == [LABELS[ROWS.index(row)] for row in x]


def test_classes_are_mixed_and_not_in_their_first_order():
    x, y = few_shot(ROWS, LABELS, 8)
    assert x != ROWS
    assert sorted(x) == sorted(ROWS)
    assert y.tolist() != sorted(y.tolist())


def test_the_seed_decides():
    first, again, other = (few_shot(ROWS, LABELS, 4, seed=s)[0] for s in (0, 0, 1))
    assert first == again
    assert set(first) != set(other)


def test_fewer_shots_are_a_subset_of_more():
    sets = [set(few_shot(ROWS, LABELS, shots, seed=3)[0]) for shots in (1, 2, 5, 8)]
    assert all(a < b for a, b in zip(sets, sets[1:], strict=False))


def test_each_row_is_drawn_as_often_as_any_other():
    counts = dict.fromkeys(ROWS, 0)
    for seed in range(800):
        for row in few_shot(ROWS, LABELS, 2, seed=seed)[0]:
            counts[row] += 1
    # Two of eight: 200 of 800, and five standard deviations.
    assert np.abs(np.array(list(counts.values())) - 200).max() < 5 * np.sqrt(800 * 0.25 * 0.75)


@pytest.mark.parametrize(
    "form", ["list", "array", "pair", "dict of arrays", "dict of list", "dict of pair"]
)
def test_x_comes_back_in_its_form(form):
    seconds = [row.upper() for row in ROWS]
    x = {
        "list": ROWS,
        "array": np.array(ROWS),
        "pair": (ROWS, seconds),
        "dict of arrays": {"token_ids": np.arange(48).reshape(24, 2), "segment_ids": np.ones(24)},
        "dict of list": {"text": ROWS},
        "dict of pair": {"text": (ROWS, seconds)},
    }[form]
    found, y = few_shot(x, LABELS.tolist(), 4)
    rows = [ROWS.index(row) for row in few_shot(ROWS, LABELS, 4)[0]]
    assert y.tolist() == LABELS[rows].tolist()
    firsts = [ROWS[r] for r in rows]
    match form:
        case "array":
            assert isinstance(found, np.ndarray) and found.tolist() == firsts
        case "dict of arrays":
            np.testing.assert_array_equal(found["token_ids"], x["token_ids"][rows])
            assert found["segment_ids"].shape == (12,)
        case "list" | "dict of list":
            assert found == (firsts if form == "list" else {"text": firsts})
        case _:
            pair = (firsts, [row.upper() for row in firsts])
            assert found == (pair if form == "pair" else {"text": pair})
    keras_mpt.TaskMix({"a": (found, y)}, batch_size=4)[0]


@pytest.mark.parametrize(
    ("x", "y", "shots", "error"),
    [
        *((ROWS, LABELS, shots, f"`shots` should be a positive integer. Received: shots={shots!r}")
          for shots in (0, -1, 1.5, None)),
        (ROWS, LABELS, 9, "`shots` should be at most the rows of each class. Received: shots=9 "
         "with rows per class {0: 8, 1: 8, 2: 8}"),
        (ROWS[:3], [5, -1, 5], 2, "`shots` should be at most the rows of each class. Received: "
         "shots=2 with rows per class {-1: 1, 5: 2}"),
        ([], np.array([], "int32"), 1, "`shots` should be at most the rows of each class. "
         "Received: shots=1 with rows per class {}"),
        (ROWS, LABELS.astype("float32"), 1, "`y` should be integer labels (N,). Received: y of "
         "shape (24,) and dtype float32"),
        (ROWS[:2], ["a", "b"], 1, "`y` should be integer labels (N,). Received: y of shape (2,) "
         "and dtype <U1"),
        (ROWS, np.eye(24, dtype=int), 1, "`y` should be integer labels (N,). Received: y of shape "
         "(24, 24) and dtype int64"),
        (ROWS[:23], LABELS, 1, "`x` should have as many rows as `y` has labels. Received: x with "
         "rows [23] and 24 labels"),
        ((ROWS, ROWS[:2]), LABELS, 1, "`x` should have as many rows as `y` has labels. Received: "
         "x with rows [2, 24] and 24 labels"),
    ],
)  # fmt: skip
def test_errors(x, y, shots, error):
    with pytest.raises(ValueError) as raised:
        few_shot(x, y, shots)
    assert str(raised.value) == error
