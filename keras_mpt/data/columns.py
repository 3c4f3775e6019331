"""Columns as people hold them: lists, arrays, and those of tables of any library.

No library is imported: pandas, Hugging Face's datasets, polars and Arrow are told by what their
objects can do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np

from keras_mpt.arrays import is_array


def as_list(column: Any) -> list[Any] | None:
    """A column's values, first to last, as Python's own; `None` where it is no column.

    Args:
        column: list, tuple, array, iterator, or a column of a table: pandas', Hugging Face's,
            polars' or Arrow's. A set or a dict has no order of rows, a table is no column.
    """
    if (
        isinstance(column, (str, bytes, Mapping, set, frozenset))
        or as_columns(column) is not column
    ):
        return None
    if type(column).__module__.startswith("tensorflow"):
        column = np.asarray(column)
    for name in ("to_pylist", "to_list", "tolist"):
        if hasattr(column, name):
            values = getattr(column, name)()
            return values if isinstance(values, list) else [values]
    is_finite = isinstance(column, (Iterator, Sized))
    return list(column) if is_finite and isinstance(column, Iterable) else None


def as_array(values: Any) -> Any:
    """Numbers as an array; tensors, a list with an array per output, and `None` as they are."""
    if values is None or (is_array(values) and _is_plain(values)):
        return values
    found = values if isinstance(values, (list, tuple)) else as_list(values)
    if found is None or any(hasattr(value, "shape") and np.ndim(value) for value in found):
        return values
    try:
        return np.asarray(found)
    except ValueError:
        raise ValueError(
            "`y` and `sample_weight` should be arrays, or lists of equal lengths. Received: "
            f"{values!r}"
        ) from None


def _is_plain(array: Any) -> bool:
    """Whether an array has a dtype that tells what it holds: pandas keeps numbers as objects."""
    return str(array.dtype) != "object" and not type(array).__module__.startswith("pandas")


def as_columns(x: Any) -> Any:
    """A table as a dict of its columns by their names; anything else as it is.

    Args:
        x: pandas or polars `DataFrame`, Hugging Face `Dataset`, Arrow table, or a mapping.
    """
    if isinstance(x, Mapping):
        return x if isinstance(x, dict) else dict(x)
    names: Any = getattr(x, "column_names", getattr(x, "columns", None))
    if names is None or not hasattr(x, "__getitem__") or is_array(x):
        return x
    return {str(name): x[name] for name in names}


def settled(x: Any) -> Any:
    """Inputs whose columns can be counted, and read more than once.

    A table becomes a dict, an iterator among its columns a list, and one string a row. What is one
    for all rows stays as it is: `None`, and task ids that are a name or a number.

    Args:
        x: inputs, as a model's `fit` takes them; a stream stays as it is.
    """
    x = as_columns(x)
    if isinstance(x, (str, tuple)):
        return _settled_column(x)
    if not isinstance(x, dict):
        return x
    return {n: v if is_for_all(n, v) else _settled_column(v) for n, v in x.items()}


def is_for_all(name: str, value: Any) -> bool:
    """Whether an input is one for all rows.

    Args:
        name: string. The input's name.
        value: what was given for it.
    """
    is_one = isinstance(value, str) or (not isinstance(value, Iterator) and np.ndim(value) == 0)
    return value is None or (name == "task_ids" and is_one)


def _settled_column(column: Any) -> Any:
    if isinstance(column, str):
        return [column]
    if isinstance(column, tuple):  # Of iterators, where it is a pair.
        return tuple(list(own) if isinstance(own, Iterator) else own for own in column)
    return list(column) if isinstance(column, Iterator) else column
