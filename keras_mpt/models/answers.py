"""Classifiers' answers: each row's class, or each token's, by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_flag, check_size
from keras_mpt.data.columns import as_columns
from keras_mpt.decoding.generation_inputs import check_rows_are_right, without_task_ids
from keras_mpt.fitting.losses import Kind
from keras_mpt.fitting.streams import is_stream
from keras_mpt.fitting.targets import mask_of
from keras_mpt.types import Data, TaskIds, Tensor

# Losses under which outputs stand each for itself.
_NO_CLASSES = (Kind.BINARY, Kind.NUMBERS)


def predicted_labels(
    model: Any, x: Data, task_ids: TaskIds | None, batch_size: int | None, return_probabilities: Any
) -> Any:
    """See `PromptTunedTextClassifier.predict_labels`, and that of tokens.

    Args:
        model: a classifier of rows or of tokens.
        x, task_ids, batch_size, return_probabilities: what it was given.
    """
    with_p = check_flag("return_probabilities", return_probabilities)
    if batch_size is not None:
        batch_size = check_size("batch_size", batch_size)
    x = model.prepared(_rows(x, task_ids))[0]
    rows = len(x[model.splice.token_inputs[0].name])
    tasks = np.broadcast_to(x.get("task_ids", 0), rows)
    _check_classes(model, x.get("task_ids"), tasks)
    logits = to_numpy(model.predict(x, batch_size, verbose=0)).astype("float64")
    counts = model.head.classes_of_rows(x.get("task_ids"), rows)
    names = [_names(model, task) for task in tasks]
    is_token = mask_of(model.model_inputs, x, 0) if logits.ndim == 3 else None
    return named_answers(logits, counts, names, is_token, with_p)


def named_answers(
    logits: np.ndarray,
    counts: np.ndarray,
    names: Sequence[list[str] | None],
    is_token: Tensor | None,
    with_probabilities: bool,
) -> Any:
    """Each row's likeliest class, or each token's, by its name.

    Args:
        logits: float array (B, C) or (B, S, C).
        counts: int array (B,). How many classes each row has: the first ones.
        names: list of B lists of strings, `None` where classes have no names.
        is_token: int tensor (B, S). Which tokens are no padding; `None` for all.
        with_probabilities: bool. Whether to give the softmax over a row's own classes too.

    Raises:
        ValueError: logits that are NaN or infinite.
    """
    rows = len(logits)
    check_rows_are_right(np.isfinite(logits).reshape(rows, -1).all(axis=1))
    is_own = np.arange(logits.shape[-1]) < counts.reshape(rows, *[1] * (logits.ndim - 1))
    logits = np.where(is_own, logits, -np.inf)
    best = logits.argmax(axis=-1)
    labels: Any = best
    if logits.ndim == 3:
        kept = np.ones(best.shape, bool) if is_token is None else to_numpy(is_token) != 0
        labels = [_named(own[k], n) for own, k, n in zip(best, kept, names, strict=True)]
        is_own = is_own & kept[..., None]
    elif any(names):
        labels = [_named([k], own)[0] for k, own in zip(best, names, strict=True)]
    if not with_probabilities:
        return labels
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p = np.where(is_own, p / p.sum(axis=-1, keepdims=True), 0)
    return labels, p.astype("float32")


def _rows(x: Data, task_ids: TaskIds | None) -> Any:
    """Data as `predict` takes them, with the task ids among them."""
    if is_stream(x):
        raise ValueError(
            "`x` should be rows in memory for their labels to be told. Received: a stream, "
            f"{type(x).__name__}, whose batches can be given one by one"
        )
    x = as_columns(x)
    x = {"text": x} if not isinstance(x, dict) else x
    x = {
        name: [text] if isinstance(text, str) and name == "text" else text
        for name, text in x.items()
    }
    x, task_ids = without_task_ids(x, task_ids)
    return x if task_ids is None else {**x, "task_ids": task_ids}


def _check_classes(model: Any, task_ids: Any, tasks: np.ndarray) -> None:
    """Refuses rows whose outputs are no classes of which one is right."""
    counts = model.head.classes_of_rows(task_ids, len(tasks))
    is_wrong = counts == 1
    if model.objective is not None:
        for goal, rows in model.objective.by_sort(task_ids, len(tasks)):
            is_wrong[rows] |= goal.kind in _NO_CLASSES
    if is_wrong.any():
        of = ""
        if model.model_inputs.has_tasks:
            of = f" of task {model.model_inputs.task_names[int(tasks[is_wrong.argmax()])]!r}"
        raise ValueError(
            "`x` should have rows of which each has one of several classes. Received: rows"
            f"{of} whose outputs are numbers by themselves, which `predict` gives"
        )


def _names(model: Any, task: int) -> list[str] | None:
    """The names of a task's classes, where it has some."""
    names, inputs = model.config.label_names, model.model_inputs
    return (names or {}).get(inputs.task_names[task]) if inputs.has_tasks else names


def _named(classes: Any, names: list[str] | None) -> list[Any]:
    return [int(k) if names is None else names[k] for k in classes]
