"""How many labels a language model gets right by its words, as `predict_labels` answers."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import received
from keras_mpt.decoding.decoding import Decoding
from keras_mpt.decoding.generation_inputs import room
from keras_mpt.decoding.score import score
from keras_mpt.decoding.scoring import Options
from keras_mpt.fitting.among_words import (
    first_tokens,
    has_label_words,
    is_accuracy,
    is_among_words,
)
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.objective import Asked, metric_name
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
    """The accuracies of tasks with words that logs have by another rule than `predict_labels`.

    Logs have them by a word's first token, and among all tokens where other metrics stand beside
    accuracy. They keep that for streams, where only some `steps` are looked at, for a task that
    also has rows whose targets are none of its words, as nothing tells its rows apart there, and,
    with a warning, for a task of rows that cannot be read with each of its words.

    Args:
        model: the model.
        data: `(x, y, sample_weight)`, prepared: tokens (N, S), next tokens and their weights; or a
            stream in the place of `x`.
        logs: what the model was evaluated to.
        batch_size: int. Rows that are read at once, or `None`.

    Returns:
        A dict of names in `logs` to numbers; empty where logs have them so.
    """
    inputs, objective = model.model_inputs, model.objective
    is_data = isinstance(data[0], dict) and data[2] is not None
    if not is_data or objective is None or not has_label_words(inputs):
        return {}
    by_first = is_among_words(inputs, objective)
    # The first token is all that there is of some words.
    wanted = inputs.label_words.longest_of_tasks > (1 if by_first else 0)
    asked = [own for own in objective.asked if is_accuracy(own.metric)]
    unweighted = {(metric_name(own.metric), own.task) for own in asked if not own.weighted}
    tasks = to_numpy(data[0]["task_ids"]) if inputs.has_tasks else np.zeros(len(data[1]), "int32")
    if not asked or not wanted[tasks].any():
        return {}
    rows = _Rows.of(inputs, data, tasks, wanted)
    right = rows.answered(model.decoding, inputs, data[0], batch_size)
    found: dict[str, float] = {}
    for own in asked:
        name = metric_name(own.metric)
        # As Keras tells two of one name apart.
        name = f"weighted_{name}" if own.weighted and (name, own.task) in unweighted else name
        found |= _means(inputs, rows, right, own, name, logs, by_first)
    return found


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The rows that count, N in all.

    Attributes:
        tasks: int array (N,).
        labels: int array (N,). Each one's class; −1 where its targets are no word.
        place: int array (N,). Where its first target stands.
        weights: float64 array (N,). Of a row of words its first token's alone, else all targets'.
        counted: bool array (N,). Whether any of its targets counts.
        whole: list of the tasks of which all rows that count can be answered.
    """

    tasks: np.ndarray
    labels: np.ndarray
    place: np.ndarray
    weights: np.ndarray
    counted: np.ndarray
    whole: list[int]

    @classmethod
    def of(
        cls,
        inputs: ModelInputs,
        data: tuple[Any, TargetData, TargetData],
        tasks: np.ndarray,
        wanted: np.ndarray,
    ) -> _Rows:
        """The rows of an evaluation's data; of tasks that are `wanted` (T,) the whole ones."""
        y, weight = map(to_numpy, data[1:])
        weight = weight.astype("float64")
        labels, place, begins = _labels(inputs, tasks, y, weight)
        weights = np.where(begins, weight[np.arange(len(y)), place], weight.sum(axis=1))
        counted = (weight != 0).any(axis=1)
        readable = _can_be_read(inputs, data[0], tasks, place)
        whole: list[int] = []
        unread: list[int] = []
        for k in np.unique(tasks[counted & wanted[tasks]]).tolist():
            own = counted & (tasks == k)
            if (labels[own] >= 0).all():
                (whole if readable[own].all() else unread).append(k)
        if unread:
            names = [inputs.task_names[k] for k in unread] if inputs.has_tasks else []
            of_tasks = f" of tasks {received(names)}" if names else ""
            warnings.warn(
                f"Accuracy{of_tasks} is that of next tokens, not of whole words as "
                "`predict_labels` chooses them: some rows are padded on the left, have positions "
                "of their own, or leave one of their task's words no room",
                stacklevel=2,
            )
        return cls(tasks, labels, place, weights, counted, whole)

    def answered(
        self, decoding: Decoding, inputs: ModelInputs, x: Any, batch_size: int | None
    ) -> np.ndarray:
        """Whether each row's answer is right, float64 (N,); 0 where it is of no whole task."""
        right = np.zeros(len(self.tasks))
        given = {n: to_numpy(v) for n, v in x.items() if n != TARGET_POSITIONS}
        mask = str(inputs.splice.token_inputs[-1].mask_name)
        longest = inputs.label_words.longest_of_tasks
        # A task's long words leave another one's rows no less room.
        for size in np.unique(longest[self.whole]):
            alike = [k for k in self.whole if longest[k] == size]
            rows = np.flatnonzero(self.counted & np.isin(self.tasks, alike))
            own = {n: value[rows] for n, value in given.items()}
            until = np.arange(own[mask].shape[1]) <= self.place[rows, None]
            own[mask] = until.astype("int32")
            scores, _ = score(decoding, inputs, own, None, None, Options(batch_size=batch_size))
            right[rows] = scores.argmax(axis=1) == self.labels[rows]
        return right


def _means(
    inputs: ModelInputs,
    rows: _Rows,
    right: np.ndarray,
    asked: Asked,
    name: str,
    logs: Mapping[str, float],
    by_first: bool,
) -> dict[str, float]:
    """One metric: of each whole task, and of all rows where these are what changes."""
    weights = rows.weights if asked.weighted else rows.counted.astype("float64")
    found: dict[str, float] = {}
    sums, known = 0.0, by_first
    whole = rows.whole if asked.task is None else [k for k in rows.whole if k == asked.task]
    for k in whole:
        of_task = f"{inputs.task_names[k]}_{name}" if inputs.has_tasks else name
        is_own = rows.counted & (rows.tasks == k)
        own = weights[is_own]
        known = known and of_task in logs
        if of_task in logs and own.sum():
            found[of_task] = float(np.average(right[is_own], weights=own))
            sums += (found[of_task] - logs[of_task]) * float(own.sum())
    if asked.task is None and whole:
        if np.isin(rows.tasks[rows.counted], whole).all() and weights.sum():
            found[name] = float(np.average(right, weights=weights))
        elif known and name in logs:
            # Logs are float32, and may lie beside what the sums say.
            found[name] = float(np.clip(logs[name] + sums / weights.sum(), 0.0, 1.0))
    return {n: value for n, value in found.items() if n in logs}


def _can_be_read(inputs: ModelInputs, x: Any, tasks: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Whether `score` reads each row up to its first target, with all of its task's words (N,)."""
    last = inputs.splice.token_inputs[-1]
    mask = to_numpy(x[str(last.mask_name)]) != 0
    until = np.arange(mask.shape[1]) <= place[:, None]
    found = (mask | ~until).all(axis=1)
    if any(name in x for name in last.other_names):
        found[:] = False
    most = room(inputs.splice)
    if most is not None:
        found &= place + 1 + inputs.label_words.longest_of_tasks[tasks] <= most
    return found


def _labels(
    inputs: ModelInputs, tasks: np.ndarray, y: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each row's class, −1 where its targets are no word, its first target's place, and whether
    that begins one of its task's words."""
    words, counts = inputs.label_words, weight != 0
    place = counts.argmax(axis=1)
    own = first_tokens(inputs)[tasks]
    is_it = (own == y[np.arange(len(y)), place][:, None]) & counts.any(axis=1)[:, None]
    begins = is_it.any(axis=1)
    labels = np.where(begins, is_it.argmax(axis=1), -1)
    for row in np.flatnonzero(begins):
        targets = y[row][counts[row]]
        if not np.array_equal(targets, words.tokens(int(tasks[row]), int(labels[row]))):
            labels[row] = -1
    return labels, place, begins
