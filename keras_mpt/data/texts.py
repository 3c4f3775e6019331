"""Texts in the forms in which people hold them, as rows of one text or of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_mpt.checks import check_utf8
from keras_mpt.data.columns import as_list

# A language model's text and how it goes on, as keras-hub names them.
PROMPTS, RESPONSES = "prompts", "responses"
# The label of a row that has a response in its place.
NO_LABEL = -100
# The names of text in a model's inputs.
TEXT_NAMES = ("text", "encoder_text", "decoder_text", PROMPTS, RESPONSES)

Row: TypeAlias = "str | tuple[str, str]"
"""A row's text, or its two texts."""


def text_rows(text: Any, num_rows: int | None = None) -> list[Row]:
    """Texts as a list of rows.

    A row of two texts whose second is `None`, NaN or empty has one.

    Args:
        text: one string, or a column of strings, of pairs of them, or of both; or a tuple of two
            such columns, which is a pair: the first and the second texts. A column is a list, a
            tuple, an array (N,), (N, 1) or (N, 2), or a table's.
        num_rows: int. How many rows there are by other data, if that is known: two strings in a
            tuple are two rows, or one pair. Defaults to `None`.

    Returns:
        A list of strings and of tuples of two strings.

    Raises:
        ValueError: what is no text, columns of different lengths, or no rows.
    """
    columns = _columns(text, num_rows)
    if columns is None:
        items = _listed(text)
    else:
        first, second = map(_listed, columns)
        if len(first) != len(second):
            raise ValueError(
                "`x` should have as many second texts as first ones. Received: "
                f"{len(first)} first and {len(second)} second texts"
            )
        items = list(zip(first, second, strict=True))
    if not items:
        raise ValueError("`x` should have at least one row of text. Received: no text")
    return [_row(item, i) for i, item in enumerate(items)]


def strings(name: str, column: Any, may_be_missing: Sequence[int] = ()) -> list[Any]:
    """A column of single texts.

    Args:
        name: string. The column's name, for the message.
        column: one string, or a list, a tuple or an array (N,) of strings, or a table's column.
        may_be_missing: list of ints. The rows that need have none. Defaults to `()`.

    Returns:
        A list of N strings; `None` in the place of what is missing.

    Raises:
        ValueError: what is no text, or no rows.
    """
    items = _listed(column)
    if not items:
        raise ValueError(f"`{name}` should have at least one row. Received: none")
    optional = {int(row) for row in may_be_missing}
    for row, item in enumerate(items):
        if not _is_string(item) and not (row in optional and _is_missing(item)):
            raise ValueError(
                f"`{name}` should have a string in each row. Received: {item!r} in row {row}"
            )
    return [_string(item, row) if _is_string(item) else None for row, item in enumerate(items)]


def text_array(rows: Sequence[Row]) -> np.ndarray:
    """Rows as an array of strings: (N,), or (N, 2) where some row is a pair.

    The second text of a row of one is empty there.
    """
    if all(isinstance(row, str) for row in rows):
        return np.asarray(rows)
    return np.asarray([(row, "") if isinstance(row, str) else row for row in rows])


def is_pair_of_columns(text: Any) -> bool:
    """Whether a text is a tuple of first and of second texts, rather than a column of rows."""
    return isinstance(text, tuple) and len(text) == 2 and not any(map(_is_string, text))


def _columns(text: Any, num_rows: int | None) -> tuple[Any, Any] | None:
    if is_pair_of_columns(text):
        return text[0], text[1]
    is_two = isinstance(text, tuple) and len(text) == 2 and all(map(_is_string, text))
    if not is_two or num_rows == 2:
        return None
    if num_rows == 1:
        return text[0], text[1]
    raise ValueError(
        "`x` should have two texts as a list of them, [first, second], and one pair as a list with "
        f"it, [(first, second)]. Received: text={text!r}"
    )


def _listed(column: Any) -> list[Any]:
    if _is_string(column):
        return [column]
    found = as_list(column)
    if found is None:
        raise ValueError(
            "`x` should have as text a string, a list or an array of strings, or a table's column, "
            "such as data['text']; for pairs a tuple of two of these. Received: text of type "
            f"{type(column).__name__}"
        )
    return found


def _row(item: Any, row: int) -> Row:
    texts = item if isinstance(item, (tuple, list, np.ndarray)) else [item]
    if len(texts) == 2 and _is_missing(texts[1]):
        texts = texts[:1]
    if not 1 <= len(texts) <= 2 or not all(map(_is_string, texts)):
        raise ValueError(
            f"`x` should have strings as text, or pairs of them. Received: {item!r} in row {row}"
        )
    strings = [_string(text, row) for text in texts]
    return strings[0] if len(strings) == 1 else (strings[0], strings[1])


def _is_string(value: Any) -> bool:
    return isinstance(value, (str, bytes))


def _is_missing(value: Any) -> bool:
    """`None`, an empty text, and what tables have in the place of a value: NaN and pandas' NA."""
    is_nan = isinstance(value, float) and value != value
    return value is None or is_nan or (_is_string(value) and not value) or _is_na(value)


def _is_na(value: Any) -> bool:
    return type(value).__name__ == "NAType"


def _string(text: str | bytes, row: int) -> str:
    return check_utf8("x", text, f" in row {row}")
