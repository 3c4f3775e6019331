"""Accuracy of rows that are answered by a label word: among their own task's words.

Letters: B rows, K targets of each, V vocabulary, C words of a task.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.objective import Objective
from keras_mpt.types import Tensor

# Below any logit, and finite in every dtype that logits have.
_LEAST = -6e4
_ACCURACIES = ("accuracy", "acc", "sparse_categorical_accuracy")


def is_among_words(inputs: ModelInputs, objective: Objective | None) -> bool:
    """Whether a model's metrics are accuracies, of which some task's are among its words.

    Args:
        inputs: the model's inputs.
        objective: what the model was compiled for, or `None`.
    """
    if objective is None or not has_label_words(inputs):
        return False
    return all(asked.weighted and is_accuracy(asked.metric) for asked in objective.asked)


def has_label_words(inputs: ModelInputs) -> bool:
    """Whether a model packs text, and has tasks that are answered by words.

    Args:
        inputs: the model's inputs.
    """
    return inputs.packs_text and bool(inputs.config.label_words)


def among_words(
    inputs: ModelInputs, task_ids: Tensor | None, y: Tensor, y_pred: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits and weights with which accuracy is that of choosing among a row's own task's words.

    A task's words differ in their first token, so that alone is looked at: at a row's first target
    that counts, the word with the largest logit is the answer, and the row's later targets weigh
    nothing. Rows whose targets begin with none of their task's words, such as
    those of tasks without words, stay as they are.

    Args:
        inputs: the model's inputs.
        task_ids: int tensor (B,), or `None` without tasks.
        y: int tensor (B, K).
        y_pred: float tensor (B, K, V).
        weight: float tensor (B, K).

    Returns:
        `(y_pred, weight)`.
    """
    first = first_tokens(inputs)
    tasks = ops.zeros(ops.shape(y)[:1], "int32") if task_ids is None else task_ids
    own = ops.take(ops.convert_to_tensor(first), tasks, axis=0)
    counts = ops.cast(ops.not_equal(weight, 0), "int32")
    is_first = ops.logical_and(ops.equal(ops.cumsum(counts, axis=1), 1), ops.equal(counts, 1))
    target = ops.sum(ops.where(is_first, ops.cast(y, "int32"), 0), axis=1)
    is_word = ops.logical_and(
        ops.any(ops.equal(own, target[:, None]), axis=1), ops.any(is_first, axis=1)
    )[:, None]
    # Of equal ones the first word is chosen, as `predict_labels` has it.
    place = ops.argmax(ops.cast(is_first, "int32"), axis=1)
    there = ops.take_along_axis(y_pred, place[:, None, None], axis=1)[:, 0]
    of_words = ops.take_along_axis(there, ops.maximum(own, 0), axis=1)
    of_words = ops.where(ops.equal(own, -1), ops.cast(_LEAST, y_pred.dtype), of_words)
    chosen = ops.take_along_axis(own, ops.argmax(of_words, axis=1)[:, None], axis=1)
    answer = ops.one_hot(ops.maximum(chosen, 0), y_pred.shape[-1], dtype=y_pred.dtype)
    is_asked = ops.logical_and(is_word, is_first)
    is_later = ops.logical_and(is_word, ops.logical_not(is_first))
    y_pred = ops.where(is_asked[..., None], answer, y_pred)
    return y_pred, ops.where(is_later, ops.zeros_like(weight), weight)


def first_tokens(inputs: ModelInputs) -> np.ndarray:
    """The first token of each task's words, int32 (T, C); −1 where a task has no such word.

    Args:
        inputs: the model's inputs.
    """
    words = inputs.label_words
    if not words.longest:
        return np.full((len(words.words), 1), -1, "int32")
    return np.where(words.sizes > 0, words.token_ids[:, :, 0], -1).astype("int32")


def is_accuracy(metric: Any) -> bool:
    """Whether a metric is the accuracy of labels.

    Args:
        metric: what `compile` was given: a name, a function or an object.
    """
    if isinstance(metric, str):
        return metric.lower() in _ACCURACIES
    if isinstance(metric, keras.Metric):
        return type(metric) is keras.metrics.SparseCategoricalAccuracy
    return metric is keras.metrics.sparse_categorical_accuracy
