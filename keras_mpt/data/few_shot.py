"""A few rows of each class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_mpt.arrays import is_array
from keras_mpt.checks import check_count, check_size
from keras_mpt.data.columns import as_array, as_list, is_for_all, settled
from keras_mpt.data.texts import RESPONSES, is_pair_of_columns
from keras_mpt.types import Data, TargetData


def few_shot(x: Data, y: TargetData, shots: int, seed: int | None = 0) -> tuple[Any, Any]:
    """Draws `shots` rows of each class, for training on a few examples of a task.

    Of prompts with responses, which are of no class, it draws `shots` rows in all.

    Rows are drawn without replacement and stand in a random order. The same seed gives the same
    rows, and of two numbers of shots under one seed the smaller draws a subset of the larger.

    Args:
        x: dict of arrays or lists (N, …), list of N strings, or pair of such lists: a task's inputs
            as `TaskMix` takes them.
        y: array or list (N,), integer. The class of each row; `None` where `x` has responses.
        shots: int. k, the rows of each class.
        seed: int; `None` draws anew each time. Defaults to `0`.

    Returns:
        `(x, y)` of k rows for each class in `y`; `x` in the form in which it was given, `y` an
        array, or `None`.

    Raises:
        ValueError: fewer than one shot, a class with fewer rows than shots, labels that are no
            integers, or another number of rows than of labels.

    Example:
        ```python
        texts = ["fine", "awful", "great", "bad", "good"]
        x, y = keras_mpt.few_shot(texts, [1, 0, 1, 0, 1], shots=2)
        assert sorted(y) == [0, 0, 1, 1]
        assert {"awful", "bad"} < set(x)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), the few-shot adaptation with k = 4, 16 and 32.
    """
    shots = check_size("shots", shots)
    if seed is not None:
        seed = check_count("seed", seed)
    x = settled(list(x) if isinstance(x, Iterator) else x)
    if y is None and isinstance(x, dict) and x.get(RESPONSES) is not None:
        found, _ = few_shot(x, np.zeros(len(x[RESPONSES]), int), shots, seed)
        return found, None
    labels = np.asarray(as_array(y))
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            "`y` should be integer labels (N,). Received: y of shape "
            f"{labels.shape} and dtype {labels.dtype}"
        )
    lengths = {len(value) for value in _leaves(x)}
    if lengths != {len(labels)}:
        raise ValueError(
            "`x` should have as many rows as `y` has labels. Received: x with rows "
            f"{sorted(lengths)} and {len(labels)} labels"
        )
    classes, counts = np.unique(labels, return_counts=True)
    if not len(classes) or counts.min() < shots:
        found = dict(zip(classes.tolist(), counts.tolist(), strict=True))
        raise ValueError(
            f"`shots` should be at most the rows of each class. Received: shots={shots} with rows "
            f"per class {found}"
        )
    rng = np.random.default_rng(seed)
    # A whole permutation for any `shots`, so that fewer shots are the first of more.
    drawn = [rng.permutation(np.flatnonzero(labels == c))[:shots] for c in classes]
    rows = rng.permutation(np.concatenate(drawn))
    return _taken(x, rows), labels[rows]


def _leaves(x: Data) -> list[Any]:
    """The columns in a dict or a pair, or the one that `x` is."""
    if isinstance(x, dict):
        of_rows = [value for name, value in x.items() if not is_for_all(name, value)]
        return [leaf for value in of_rows for leaf in _leaves(value)]
    return list(x) if is_pair_of_columns(x) else [x]


def _taken(x: Data, rows: np.ndarray) -> Data:
    if isinstance(x, dict):
        return {n: v if is_for_all(n, v) else _taken(v, rows) for n, v in x.items()}
    if is_pair_of_columns(x):
        return tuple(_taken(value, rows) for value in x)
    if is_array(x):
        return np.asarray(x)[rows]
    column = as_list(x)
    assert column is not None
    return [column[row] for row in rows]
