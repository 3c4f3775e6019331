"""Texts with a mask as inputs of a masked language model, and labels as the tokens of words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_mpt.data.texts import text_rows
from keras_mpt.fitting.mask_positions import MASK_POSITIONS
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.word_labels import checked_labels
from keras_mpt.prompts.task_ids import check_task_ids
from keras_mpt.types import TargetData


def asked(
    inputs: ModelInputs,
    texts: Mapping[str, Any],
    task_ids: Any,
    y: TargetData,
    num_rows: int | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray | None, np.ndarray | None]:
    """The backbone's inputs with `mask_positions`, and the tokens that stand there.

    Args:
        inputs: the model's inputs.
        texts: dict with texts that hold the mask token once, as "text".
        task_ids: each row's task, or `None`.
        y: integer labels (B,), or `None`.
        num_rows: int. How many rows other data have, if that is known. Defaults to `None`.

    Returns:
        `(x, y, sample_weight)`: y int32 and weights of 1, both (B, 1), or `None` where there are no
        labels.

    Raises:
        ValueError: texts that do not hold the mask token once or are too long, a task without
            words, or labels that it has no word for.
    """
    assert inputs.mask_text is not None
    rows = text_rows(texts["text"], num_rows)
    x = inputs.mask_text.inputs(rows)
    if y is None:
        return x, None, None
    names, ids = inputs.task_names, None
    if inputs.has_tasks:
        ids = np.broadcast_to(check_task_ids(task_ids, len(names), len(rows), names), len(rows))
    tasks = inputs.label_words.tasks_of_rows(ids, len(rows))
    labels = checked_labels(inputs.label_words, tasks, y)
    tokens = inputs.label_words.token_ids[tasks, labels, :1]
    return x, tokens, np.ones(tokens.shape, "float32")


def asked_tf(
    inputs: ModelInputs,
    texts: Mapping[str, Any],
    task_ids: Any,
    y: TargetData,
    noting: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> tuple[dict[str, Any], TargetData, TargetData]:
    """`asked` inside `tf.data`.

    Args:
        inputs: the model's inputs.
        texts: likewise, of tensors.
        task_ids: tensor, or `None`.
        y: tensor, or `None`.
        noting: what a function is wrapped in whose errors `tf.data` would wrap in its own.

    Returns:
        The three, as tensors.
    """
    import tensorflow as tf

    given = {"texts": dict(texts), "task_ids": task_ids, "y": y}
    given = {name: value for name, value in given.items() if value is not None}
    flat = keras.tree.flatten(given)
    names = [n for n in inputs.names if n != "task_ids"]

    def values(*arrays: Any) -> list[np.ndarray]:
        found = keras.tree.pack_sequence_as(given, arrays)
        x, tokens, _ = asked(inputs, found["texts"], found.get("task_ids"), found.get("y"))
        return [*(x[n] for n in names), *([] if tokens is None else [tokens])]

    dtypes = [tf.int32] * (len(names) + (y is not None))
    made = tf.numpy_function(noting(values), flat, dtypes, stateful=False)
    for name, tensor in zip([*names, "y"], made, strict=False):
        tensor.set_shape([None, 1 if name in (MASK_POSITIONS, "y") else None])
    x = dict(zip(names, made, strict=False))
    return (x, None, None) if y is None else (x, made[-1], tf.ones_like(made[-1], "float32"))
