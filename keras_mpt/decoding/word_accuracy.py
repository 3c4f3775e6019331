"""How many labels a language model gets right by its words, where these have several tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.decoding.decoding import Decoding
from keras_mpt.decoding.score import score
from keras_mpt.decoding.scoring import Options
from keras_mpt.fitting.among_words import first_tokens, is_among_words
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.step_data import Measured
from keras_mpt.fitting.target_positions import TARGET_POSITIONS
from keras_mpt.types import TargetData


class Evaluated(Measured, Protocol):
    """What is asked of a model here: a `LanguageModel` has it."""

    @property
    def decoding(self) -> Decoding:
        """The model's ways to decode."""


def exact_accuracies(
    model: Evaluated,
    data: tuple[Any, TargetData, TargetData],
    logs: Mapping[str, float],
    batch_size: int | None,
) -> dict[str, float]:
    """The accuracies that words of several tokens change, as `predict_labels` answers.

    Logs have them by the first token alone, and keep that for streams, where only some `steps` are
    looked at, and for a task that also has rows whose targets are none of its words, as nothing
    tells its rows apart there.

    Args:
        model: the model.
        data: `(x, y, sample_weight)`, prepared: tokens (N, S), next tokens and their weights; or a
            stream in the place of `x`.
        logs: what the model was evaluated to.
        batch_size: int. Rows that are read at once, or `None`.

    Returns:
        A dict of names in `logs` to numbers; empty where no words have several tokens.
    """
    inputs, objective = model.model_inputs, model.objective
    is_data = isinstance(data[0], dict) and data[2] is not None
    if not is_data or objective is None or not is_among_words(inputs, objective):
        return {}
    found: dict[str, float] = {}
    for asked in objective.asked:
        if asked.task is None:
            name = asked.metric if isinstance(asked.metric, str) else asked.metric.name
            found |= _exact(model, data, logs, name, batch_size)
    return found


def _exact(
    model: Evaluated,
    data: tuple[Any, TargetData, TargetData],
    logs: Mapping[str, float],
    name: str,
    batch_size: int | None,
) -> dict[str, float]:
    """The same of one metric."""
    inputs = model.model_inputs
    x, (y, weight) = data[0], map(to_numpy, data[1:])
    has_several = inputs.label_words.sizes.max(axis=1, initial=0) > 1
    tasks = to_numpy(x["task_ids"]) if inputs.has_tasks else np.zeros(len(y), "int32")
    if not has_several[tasks].any():
        return {}
    labels, place = _labels(inputs, tasks, y, weight)
    whole = [k for k in np.unique(tasks) if has_several[k] and (labels[tasks == k] >= 0).all()]
    rows = np.flatnonzero(np.isin(tasks, whole))
    # Of a label's row the first token alone weighs.
    weights = np.where(labels >= 0, weight[np.arange(len(y)), place], weight.sum(axis=1))
    if not weights[rows].any():
        return {}
    given = {n: to_numpy(v)[rows] for n, v in x.items() if n != TARGET_POSITIONS}
    last = inputs.splice.token_inputs[-1]
    given[str(last.mask_name)] = (np.arange(y.shape[1]) <= place[rows, None]).astype("int32")
    scores, _ = score(model.decoding, inputs, given, None, None, Options(batch_size=batch_size))
    right = np.where(scores.argmax(axis=1) == labels[rows], 1.0, 0.0)
    found: dict[str, float] = {}
    sums, known = 0.0, True
    for k in whole:
        of_task = f"{inputs.task_names[k]}_{name}" if inputs.has_tasks else name
        is_own = tasks[rows] == k
        own = weights[rows][is_own]
        known = known and of_task in logs
        if of_task in logs and own.any():
            found[of_task] = float(np.average(right[is_own], weights=own))
            sums += (found[of_task] - logs[of_task]) * float(own.sum())
    if len(rows) == len(y):
        found[name] = float(np.average(right, weights=weights))
    elif known:
        found[name] = logs[name] + sums / float(weights.sum())
    return {n: value for n, value in found.items() if n in logs}


def _labels(
    inputs: ModelInputs, tasks: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each row's class, −1 where its targets are no word, and the place of its first target."""
    words, counts = inputs.label_words, weight != 0
    place = counts.argmax(axis=1)
    own = first_tokens(inputs)[tasks]
    is_it = (own == y[np.arange(len(y)), place][:, None]) & counts.any(axis=1)[:, None]
    labels = np.where(is_it.any(axis=1), is_it.argmax(axis=1), -1)
    for row in np.flatnonzero(labels >= 0):
        targets = y[row][counts[row]]
        if not np.array_equal(targets, words.tokens(int(tasks[row]), int(labels[row]))):
            labels[row] = -1
    return labels, place
