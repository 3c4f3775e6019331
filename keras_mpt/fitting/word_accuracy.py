"""How often the likeliest of a task's label words is the right one.

Letters: B rows, K targets of each, V vocabulary, C classes of a task at most.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from keras_mpt.fitting.label_words import LabelWords
from keras_mpt.fitting.own_columns import current_rows
from keras_mpt.types import Tensor

# Below every logit.
_NONE = -1e9


def word_accuracy(words: LabelWords) -> keras.Metric:
    """The accuracy of models that answer in words, under the name that accuracy has.

    Where a target is the first token of one of its row's task's words, the answer is the likeliest
    of these tokens; elsewhere it is the likeliest token.

    Args:
        words: the tasks' words.
    """
    return keras.metrics.MeanMetricWrapper(_answers(words), name="accuracy")


def _answers(words: LabelWords) -> Callable[[Tensor, Tensor], Tensor]:
    first, are_there = words.token_ids[:, :, 0], words.sizes > 0

    def accuracy(y: Tensor, y_pred: Tensor) -> Tensor:
        """Whether each answer is right, float (B, K), of targets (B, K) and logits (B, K, V)."""
        tasks = current_rows()
        tasks = ops.zeros(ops.shape(y)[:1], "int32") if tasks is None else tasks
        own = ops.take(ops.convert_to_tensor(first), tasks, axis=0)[:, None]
        is_own = ops.take(ops.convert_to_tensor(are_there), tasks, axis=0)[:, None]
        y = ops.cast(y, own.dtype)
        logits = ops.take_along_axis(y_pred, own, axis=-1)
        logits = ops.where(is_own, logits, ops.cast(_NONE, logits.dtype))
        best = ops.argmax(logits, axis=-1)[..., None]
        word = ops.take_along_axis(ops.broadcast_to(own, ops.shape(logits)), best, axis=-1)[..., 0]
        is_word = ops.any(ops.logical_and(is_own, ops.equal(own, y[..., None])), axis=-1)
        answer = ops.where(is_word, word, ops.cast(ops.argmax(y_pred, axis=-1), own.dtype))
        return ops.cast(ops.equal(answer, y), "float32")

    return accuracy
