"""Texts in every form in which people hold them become the same rows, or are refused in words."""

import numpy as np
import pytest
import tensorflow as tf

import keras_mpt
from keras_mpt.data.columns import as_array
from keras_mpt.data.texts import text_array, text_rows
from tests.data.tables import Arrow, Column, DataFrame, Dataset, Series

TEXTS, SECONDS = ["a", "bb", "c c"], ["x", "", "z"]
PAIRS = [("a", "x"), "bb", ("c c", "z")]


class NAType:
    """pandas' mark for a missing value."""


FORMS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "array of objects": lambda texts: np.array(texts, object),
    "bytes": lambda texts: [text.encode() for text in texts],
    "array of bytes": lambda texts: np.array([text.encode() for text in texts]),
    "iterator": lambda texts: (text for text in texts),
    "pandas": Series,
    "datasets": Column,
    "Arrow": Arrow,
    "tensor": tf.constant,
}


@pytest.mark.parametrize("form", FORMS)
def test_columns_of_texts_and_pairs_of_columns(form):
    assert text_rows(FORMS[form](TEXTS)) == TEXTS
    assert text_rows((FORMS[form](TEXTS), FORMS[form](SECONDS))) == PAIRS
    assert text_rows(FORMS[form](["a", "bb"]), num_rows=2) == ["a", "bb"]
    assert text_rows(FORMS[form](["a"])) == ["a"]


@pytest.mark.parametrize("missing", [None, "", b"", float("nan"), NAType()])
def test_a_pair_without_a_second_text_is_one_text(missing):
    assert text_rows((TEXTS, ["x", missing, "z"])) == PAIRS
    assert text_rows([("a", "x"), ["bb", missing], ("c c", "z")]) == PAIRS


@pytest.mark.parametrize(
    "form",
    [
        PAIRS,
        tuple(PAIRS),
        np.array([TEXTS, SECONDS]).T,
        [["a", "x"], ["bb"], ("c c", b"z")],
        Series([*PAIRS, None][:3]),
        tf.constant(np.array([TEXTS, SECONDS]).T),
    ],
)
def test_rows_of_texts_and_of_pairs(form):
    assert text_rows(form) == PAIRS


@pytest.mark.parametrize("text", ["a b", b"a b", np.array("a b"), tf.constant("a b")])
def test_one_string_is_one_row(text):
    assert text_rows(text) == ["a b"]


def test_two_strings_in_a_tuple_are_what_the_rows_say():
    assert text_rows(("a", "b"), num_rows=2) == ["a", "b"]
    assert text_rows(("a", "b"), num_rows=1) == [("a", "b")]
    assert text_rows((["a"], ["b"])) == text_rows([("a", "b")]) == [("a", "b")]
    with pytest.raises(ValueError, match=r"\[first, second\], and one pair as a list with"):
        text_rows(("a", "b"))


def test_rows_as_an_array():
    assert text_array(TEXTS).tolist() == TEXTS
    found = text_array(PAIRS)
    assert found.tolist() == [["a", "x"], ["bb", ""], ["c c", "z"]]
    assert text_rows(found) == PAIRS


NO_ROW = "`x` should have strings as text, or pairs of them. Received: "
NO_COLUMN = (
    "`x` should have as text a string, a list or an array of strings, or a table's column, such as "
    "data['text']; for pairs a tuple of two of these. Received: text of type "
)
UTF_8 = "`x` should have text in UTF-8: decode it with the encoding that it is in. Received: "


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ([], "`x` should have at least one row of text. Received: no text"),
        (np.array([], str), "`x` should have at least one row of text. Received: no text"),
        (([], []), "`x` should have at least one row of text. Received: no text"),
        (["a", None], f"{NO_ROW}None in row 1"),
        (["a", ("b", "c", "d")], f"{NO_ROW}('b', 'c', 'd') in row 1"),
        ([("a", "b"), (None, "b")], f"{NO_ROW}(None, 'b') in row 1"),
        (np.array([["a", "b", "c"]]), f"{NO_ROW}['a', 'b', 'c'] in row 0"),
        (np.array([[1, 2], [3, 4]]), f"{NO_ROW}[1, 2] in row 0"),
        ({"a", "b"}, f"{NO_COLUMN}set"),
        ({"a": 1}, f"{NO_COLUMN}dict"),
        (DataFrame({"text": TEXTS, "label": SECONDS}), f"{NO_COLUMN}DataFrame"),
        (Dataset({"text": TEXTS}), f"{NO_COLUMN}Dataset"),
        (3, f"{NO_COLUMN}int"),
        (([*TEXTS, "d"], SECONDS), "`x` should have as many second texts as first ones. Received: "
         "4 first and 3 second texts"),
        (["a", b"\xff"], f"{UTF_8}b'\\xff' in row 1"),
        (["a\ud800"], f"{UTF_8}'a\\ud800' in row 0"),
    ],
)  # fmt: skip
def test_what_is_no_text(text, words):
    with pytest.raises(ValueError) as raised:
        text_rows(text)
    assert str(raised.value) == words


@pytest.mark.parametrize("form", [list, tuple, np.array, Series, Column, Arrow])
def test_targets_of_any_column_are_an_array(form):
    found = as_array(form([1, 0, 2]))
    assert isinstance(found, np.ndarray) and found.dtype == int and found.tolist() == [1, 0, 2]
    assert as_array(form([0.5, 1.0])).dtype == float


def test_targets_that_are_more_than_numbers():
    each = [np.array([1, 2]), np.array([3, 4])]
    assert as_array(each) is each and as_array(None) is None
    with pytest.raises(ValueError, match="^`y` and `sample_weight` should be arrays, or lists of "):
        as_array([[1], [2, 3]])


def test_a_mix_and_a_stack_of_texts_with_pairs():
    datasets = {
        "one": (Series(["only", "alone"]), Series([0, 1])),
        "two": ((Column(["a", "b"]), Column(["x", "y"])), Column([2, 3])),
        "both": ([("p", "q"), "r"], (4, 5)),
    }
    wanted = {0: ["only", ""], 1: ["alone", ""], 2: ["a", "x"], 3: ["b", "y"], 4: ["p", "q"],
              5: ["r", ""]}  # fmt: skip
    mix = keras_mpt.TaskMix(datasets, batch_size=6, seed=1)
    for x, y in [mix[0], keras_mpt.stack_tasks(datasets)]:
        assert sorted(y.tolist()) == list(wanted)
        assert x["text"].tolist() == [wanted[label] for label in y.tolist()]
    tables = {name: (Dataset({"text": x}), y) for name, (x, y) in datasets.items() if name == "one"}
    assert keras_mpt.TaskMix(tables, batch_size=2, shuffle=False)[0][0]["text"].tolist() == [
        "only",
        "alone",
    ]


def test_errors_of_a_mix_name_the_task():
    with pytest.raises(ValueError) as raised:
        keras_mpt.TaskMix({"one": (["a"], [0]), "two": (["a", None], [0, 1])}, batch_size=2)
    assert str(raised.value) == f"In the data of task 'two': {NO_ROW}None in row 1"


@pytest.mark.parametrize("form", [list, tuple, Series, Column])
def test_few_rows_of_a_column(form):
    texts = [f"row {i}" for i in range(6)]
    expected = keras_mpt.few_shot(texts, [0, 1] * 3, 2)
    found = keras_mpt.few_shot(form(texts), form([0, 1] * 3), 2)
    assert list(found[0]) == expected[0] and found[1].tolist() == expected[1].tolist()
    pairs = [(text, text.upper()) for text in texts]
    assert keras_mpt.few_shot(pairs, [0, 1] * 3, 2)[0] == [(t, t.upper()) for t in expected[0]]
