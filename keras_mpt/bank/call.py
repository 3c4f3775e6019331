"""One call of a bank: rows, their adapters, and what is computed of both."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.bank.adapter import Served
from keras_mpt.bank.language import CallDecoding, Decoders
from keras_mpt.bank.outputs import outputs_of
from keras_mpt.bank.request import Request
from keras_mpt.bank.room import Room
from keras_mpt.config_values import TaskType
from keras_mpt.decoding import generate as generating
from keras_mpt.decoding.candidates import Candidates
from keras_mpt.decoding.score import score
from keras_mpt.decoding.scoring import Options
from keras_mpt.fitting.label_words import have_words
from keras_mpt.fitting.preparation import Preparation
from keras_mpt.fitting.streams import is_stream
from keras_mpt.models.answers import named_answers
from keras_mpt.types import Sampler


class Call:
    """What a bank's call is made of.

    Args:
        request: the prompts that its rows have.
        given: its inputs, without adapters.
        room: the sizes that are compiled.
        decoders: the ways to decode; `None` where the adapters are of no language model.
    """

    def __init__(self, request: Request, given: Any, room: Room, decoders: Decoders | None) -> None:
        self.request, self.given, self.room, self.decoders = request, given, room, decoders
        self.kind = request.served[0].adapter.kind
        self.inputs = request.inputs(self.kind.model.model_inputs)

    @property
    def is_language(self) -> bool:
        """Whether the adapters are of a language model."""
        return self.decoders is not None

    def check_language(self) -> None:
        """Refuses adapters of no language model."""
        if not self.is_language:
            raise ValueError(
                "`task_type` of the bank should be a language model's for text to be scored or "
                f"generated. Received: task_type={str(self.kind.task_type)!r}"
            )

    @functools.cached_property
    def rows(self) -> dict[str, Any]:
        """The inputs as `predict` takes them, with the rows' tasks."""
        given = self.given
        if is_stream(given):
            raise ValueError(
                "`x` should be rows in memory. Received: a stream, "
                f"{type(given).__name__}, whose batches can be given one by one"
            )
        given = given if isinstance(given, dict) else {"text": given}
        text = given.get("text")
        given = {**given, "text": [text]} if isinstance(text, str) else given
        return {**given, "task_ids": self.request.task_ids}

    @property
    def answers_in_words(self) -> bool:
        """Whether all rows are text of tasks with label words."""
        return self.is_language and have_words(self.inputs, self.rows)

    def scores(self, candidates: Any, options: Options) -> tuple[np.ndarray, Candidates]:
        """See `LanguageModel.score`."""
        assert self.decoders is not None
        decoding = CallDecoding(self.decoders, self.request.served)
        given = self.given, candidates, self.request.task_ids
        return score(decoding, self.inputs, *given, options)

    def generated(self, sampler: Sampler, **options: Any) -> Any:
        """See `LanguageModel.generate`."""
        assert self.decoders is not None
        served, task_ids = self.request.served, self.request.task_ids
        if _draws_one_by_one(sampler):
            decoding = CallDecoding(self.decoders, served)
            given = decoding, self.inputs, sampler, self.given
            return generating.generate(*given, task_ids=task_ids, **options)
        return self._generated_by_length(sampler, options)

    def _generated_by_length(self, sampler: Sampler, options: dict[str, Any]) -> Any:
        """For samplers that look at whole rows: these must be as wide as in their own models."""
        assert self.decoders is not None
        served, tasks = self.request.served, np.asarray(self.request.task_ids)
        _check_text_alone(sampler, served, self.decoders.is_causal)
        lengths = np.array(
            [(s.adapter.length, s.adapter.at, s.adapter.config.submodules) for s in served]
        )
        parts, rows = [], np.atleast_1d(tasks)
        for one in np.unique(lengths, axis=0):
            chosen = np.flatnonzero((lengths[rows] == one).all(axis=1))
            if not len(chosen):
                continue
            of_group = [served[k] for k in rows[chosen]]
            decoding = CallDecoding(self.decoders, served, of_group)
            is_whole = len(chosen) == len(rows)
            given = self.given if is_whole else _rows_of(self.given, chosen)
            ids = self.request.task_ids if is_whole else rows[chosen]
            asked = decoding, self.inputs, sampler, given
            parts.append((chosen, generating.generate(*asked, task_ids=ids, **options)))
        return parts[0][1] if len(parts) == 1 else _together(parts, len(rows))

    def outputs(self, batch_size: int, verbose: bool = False) -> Any:
        """See `PromptBank.predict`."""
        x = self._prepared
        tasks = self.request.rows_of(x, self._count)
        x = {name: value for name, value in x.items() if name != "task_ids"}
        return outputs_of(x, tasks, self.room, batch_size, verbose)

    def labels(self, batch_size: int, with_probabilities: bool) -> Any:
        """See `PromptBank.predict_labels`, of adapters with heads."""
        if self.kind.task_type not in (TaskType.SEQ_CLS, TaskType.TOKEN_CLS):
            raise ValueError(
                "`task_type` of the bank should be of models with classes for labels to be told. "
                f"Received: task_type={str(self.kind.task_type)!r}"
            )
        rows = self.request.rows_of(self._prepared, self._count)
        counts = np.array([served.num_classes for served in rows])
        if (counts == 1).any():
            name = rows[int((counts == 1).argmax())].name
            raise ValueError(
                "`x` should have rows of which each has one of several classes. Received: rows of "
                f"{name!r}, whose output is a number by itself, which `predict` gives"
            )
        logits = self.outputs(batch_size).astype("float64")
        names = [served.adapter.label_names(served.task) for served in rows]
        is_token = None
        if logits.ndim == 3:
            is_token = self._prepared.get(str(self.inputs.splice.token_inputs[0].mask_name))
        return named_answers(logits, counts, names, is_token, with_probabilities)

    @functools.cached_property
    def _prepared(self) -> dict[str, Any]:
        """The rows, checked and tokenized."""
        prepare = Preparation(self.inputs, lambda x, y: None, with_targets=False)
        x: dict[str, Any] = prepare(self.rows)[0]
        return x

    @property
    def _count(self) -> int:
        return len(self._prepared[self.inputs.splice.token_inputs[0].name])


def _draws_one_by_one(sampler: Sampler) -> bool:
    """Whether a sampler looks at nothing but each next token's probabilities."""
    import keras_hub

    of_hub = keras_hub.samplers
    known = (of_hub.GreedySampler, of_hub.TopKSampler, of_hub.TopPSampler, of_hub.RandomSampler)
    return type(sampler) in known


def _check_text_alone(sampler: Sampler, served: Sequence[Served], is_causal: bool) -> None:
    """Refuses to compare new tokens with a text that has virtual ones in it."""
    import keras_hub

    stands_in_text = any(
        s.adapter.at or (not is_causal and s.adapter.config.submodules > 1) for s in served
    )
    if isinstance(sampler, keras_hub.samplers.ContrastiveSampler) and stands_in_text:
        raise ValueError(
            "`sampler` should be another one for adapters whose prompts stand among the tokens "
            "that are continued, which a ContrastiveSampler compares new ones with. Received: "
            f"sampler={type(sampler).__name__}"
        )


def _rows_of(given: Any, rows: np.ndarray) -> Any:
    """Some rows of a list of texts, or of a dict of columns."""
    if isinstance(given, dict):
        return {name: _rows_of(value, rows) for name, value in given.items()}
    if isinstance(given, (list, tuple)):
        return [given[i] for i in rows]
    return to_numpy(given)[rows]


def _together(parts: list[tuple[np.ndarray, Any]], count: int) -> Any:
    """What each part's rows got, in the order of all rows."""
    if isinstance(parts[0][1], dict):
        return {name: _together([(r, p[name]) for r, p in parts], count) for name in parts[0][1]}
    found: list[Any] = [None] * count
    for rows, made in parts:
        for row, own in zip(rows, made, strict=True):
            found[row] = own
    return np.stack(found) if isinstance(parts[0][1], np.ndarray) else found
