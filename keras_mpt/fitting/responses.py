"""Columns of prompts and of what should follow them, as a language model trains on them.

What follows is each row's own response, or the word of its label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.data.texts import NO_LABEL, PROMPTS, RESPONSES, strings
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.packing import Tokens
from keras_mpt.fitting.word_labels import checked_labels
from keras_mpt.prompts.task_ids import check_task_ids
from keras_mpt.splicing.splice import TEXT_LENGTHS
from keras_mpt.types import TargetData, TaskIds


def packed(
    inputs: ModelInputs,
    texts: Mapping[str, Any],
    y: TargetData = None,
    sample_weight: TargetData = None,
    task_ids: TaskIds | None = None,
    with_targets: bool = True,
) -> tuple[dict[str, np.ndarray], TargetData, TargetData]:
    """The backbone's inputs, next tokens, and weights: 0 but at the tokens of what should follow.

    Args:
        inputs: the inputs of a language model that takes text.
        texts: dict of a column of strings under "prompts", and of responses under "responses",
            where some row has one.
        y: int array (B,). The classes of rows whose task has label words; `NO_LABEL` in a row with
            a response. `None` where all have responses.
        sample_weight: array of weights of rows (B,), or `None`.
        task_ids: the rows' tasks, or `None`.
        with_targets: bool. Whether targets are wanted. Defaults to `True`.

    Returns:
        `(x, y, sample_weight)`: `x` a dict of int32 arrays (B, S), `y` int32 and `sample_weight`
        float32 (B, S); the last two are `None` where nothing should follow.

    Raises:
        ValueError: columns of other things than strings or of different lengths, responses that do
            not fit or are empty, prompts that do not fit, labels that are no classes of a row's
            task, or rows with both or neither.
    """
    assert inputs.packing is not None
    packing, prompts = inputs.packing, strings(PROMPTS, texts[PROMPTS])
    y = y if with_targets else None
    is_per_row = sample_weight is None or np.shape(sample_weight) == (len(prompts),)
    if with_targets and not is_per_row:
        raise ValueError(
            "`sample_weight` should have one weight per row, (N,), where `x` has 'prompts'. "
            f"Received: sample_weight of shape {np.shape(sample_weight)}"
        )
    if y is None and texts.get(RESPONSES) is None:
        rows = packing.rows(prompts, [[]] * len(prompts))
        return packing.inputs(rows, with_responses=False), None, sample_weight
    labels = _labels(inputs, y, task_ids, len(prompts))
    answers = _answers(inputs, texts.get(RESPONSES), labels, task_ids)
    # A prompt is cut the same whichever of its task's words follows it, as when it is asked.
    most = 0 if y is None else packing.room_for(inputs.label_words.longest)
    rows = packing.rows(prompts, answers, np.where(labels == NO_LABEL, 0, most).tolist())
    x = packing.inputs(rows)
    if not with_targets:
        return x, None, None
    tokens, weight = packing.targets(rows)
    if sample_weight is not None:
        weight = weight * to_numpy(sample_weight).astype("float32")[:, None]
    return x, tokens, weight


def packed_tf(
    inputs: ModelInputs,
    texts: Mapping[str, Any],
    y: TargetData,
    sample_weight: TargetData,
    task_ids: TaskIds | None,
    with_targets: bool,
    noting: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> tuple[dict[str, Any], TargetData, TargetData]:
    """`packed` inside `tf.data`.

    Args:
        inputs: as in `packed`, as the next five, of tensors.
        texts: likewise.
        y: likewise.
        sample_weight: likewise.
        task_ids: likewise.
        with_targets: likewise.
        noting: what a function is wrapped in whose errors `tf.data` would wrap in its own.

    Returns:
        The three, of tensors.
    """
    import tensorflow as tf

    given = {"texts": dict(texts), "y": y, "sample_weight": sample_weight, "task_ids": task_ids}
    given = {name: value for name, value in given.items() if value is not None}
    names = [n for t in inputs.splice.token_inputs for n in (t.name, str(t.mask_name))]
    names += [TEXT_LENGTHS] * inputs.splice.is_after
    has_targets = with_targets and (y is not None or RESPONSES in texts)

    def values(*arrays: Any) -> list[np.ndarray]:
        found = keras.tree.pack_sequence_as(given, arrays)
        x, *targets = packed(inputs, **found, with_targets=with_targets)
        return [*(x[name] for name in names), *(targets if has_targets else [])]

    dtypes = [tf.int32] * len(names) + [tf.int32, tf.float32] * has_targets
    flat = keras.tree.flatten(given)
    made = tf.numpy_function(noting(values), flat, dtypes, stateful=False)
    x = dict(zip(names, made, strict=False))
    for tensor in made:
        tensor.set_shape([None] if tensor is x.get(TEXT_LENGTHS) else [None, None])
    return (x, made[-2], made[-1]) if has_targets else (x, None, None)


def check_same_rows(prompts: Sequence[str], responses: Sequence[Any]) -> None:
    """Refuses another number of responses than of prompts."""
    if len(responses) != len(prompts):
        raise ValueError(
            f"`responses` should be as many as `prompts`. Received: {len(prompts)} prompts and "
            f"{len(responses)} responses"
        )


def _answers(
    inputs: ModelInputs, responses: Any, labels: np.ndarray, task_ids: TaskIds | None
) -> list[Tokens]:
    """What follows each row."""
    assert inputs.packing is not None
    has_label = labels != NO_LABEL
    given: list[str | None] = [None] * len(labels)
    if responses is not None:
        given = strings(RESPONSES, responses, np.flatnonzero(has_label).tolist())
        check_same_rows([""] * len(labels), given)
    for row in np.flatnonzero(has_label):
        if given[row]:
            raise ValueError(
                f"`y` should be {NO_LABEL} in rows with a response of their own. Received: label "
                f"{labels[row]} in row {row} with {given[row]!r}"
            )
    for row in np.flatnonzero(~has_label):
        if given[row] is None:
            raise ValueError(
                f"`y` should hold a label, not {NO_LABEL}, in rows without a response. Received: "
                f"{NO_LABEL} in row {row}"
            )
    free = np.flatnonzero(~has_label).tolist()
    found: list[Tokens] = [[]] * len(labels)
    tokens = inputs.packing.response_tokens([given[row] or "" for row in free], free)
    for free_row, own in zip(free, tokens, strict=True):
        found[free_row] = own
    if has_label.any():
        tasks = _tasks(inputs, task_ids, len(labels))
        for row in np.flatnonzero(has_label):
            task = 0 if tasks is None else int(tasks[row])
            found[row] = inputs.label_words.tokens(task, int(labels[row])).tolist()
    return found


def _labels(inputs: ModelInputs, y: TargetData, task_ids: TaskIds | None, rows: int) -> np.ndarray:
    """Each row's class, int (B,)."""
    if y is None:
        return np.full(rows, NO_LABEL)
    tasks, labels = _tasks(inputs, task_ids, rows), to_numpy(y)
    # What is no number, or not one per row, is refused below.
    is_labels = labels.dtype.kind in "iufb" and labels.size == rows
    labelled = np.flatnonzero(labels.ravel() != NO_LABEL) if is_labels else np.arange(rows)
    of_rows = np.zeros(rows, "int32") if tasks is None else tasks
    if labelled.size:
        own = None if tasks is None else tasks[labelled]
        inputs.label_words.tasks_of_rows(own, labelled.size)
    return checked_labels(inputs.label_words, of_rows, y, NO_LABEL)


def _tasks(inputs: ModelInputs, task_ids: TaskIds | None, rows: int) -> np.ndarray | None:
    """Each row's task (B,), or `None` without tasks."""
    if not inputs.has_tasks:
        return None
    names = inputs.task_names
    return np.asarray(check_task_ids(task_ids, len(names), rows, names))
