"""What a bank is asked: rows, and which adapter answers each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mpt.bank.adapter import BankAdapter, Served
from keras_mpt.bank.shelf import Shelf
from keras_mpt.checks import received
from keras_mpt.config import MultitaskPromptTuningConfig
from keras_mpt.data.columns import as_columns, as_list
from keras_mpt.fitting.label_words import LabelWords
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.splicing.view import View

ADAPTER = "adapter"


def check_count(inputs: Any, adapter: Any) -> None:
    """Refuses adapters for another number of rows, as far as that can be seen."""
    given: Any = inputs
    if isinstance(inputs, dict):
        given = next((value for value in inputs.values() if value is not None), None)
    if isinstance(given, tuple) and given and not isinstance(given[0], str):  # Pairs, as columns.
        given = given[0]
    if isinstance(adapter, str) or isinstance(given, (str, bytes)) or not hasattr(given, "__len__"):
        return
    names = as_list(adapter)
    if names is not None and len(names) != len(given):
        raise ValueError(
            f"`adapter` should be one name, or one per row: {len(given)} of them. Received: "
            f"{len(names)} names"
        )


def without_adapter(inputs: Any, adapter: Any) -> tuple[Any, Any]:
    """The inputs alone, and the rows' adapters, given among them or beside them."""
    inputs = as_columns(inputs)
    if isinstance(inputs, dict):
        inputs = dict(inputs)
        if "task_ids" in inputs:
            raise ValueError(
                "`task_ids` should be left out: a row names its adapter, and a task of its as "
                f"'adapter/task'. Received: inputs with {sorted(inputs)}"
            )
        own = inputs.pop(ADAPTER, None)
        if own is not None and adapter is not None:
            raise ValueError(
                "`adapter` should be given once, in `inputs` or beside it. Received: both "
                f"{received(own)} and {received(adapter)}"
            )
        adapter = own if adapter is None else adapter
    if adapter is None:
        raise ValueError(
            "`adapter` should be given: the adapter that answers each row, by its name. Received: "
            "adapter=None"
        )
    return inputs, adapter


@dataclasses.dataclass(frozen=True)
class CallInputs(ModelInputs):
    """The inputs of a call: as of a model whose tasks are those that the call's rows name.

    Attributes:
        words: their label words.
    """

    words: LabelWords | None = None

    @property
    def label_words(self) -> LabelWords:
        """The tasks' classes as words and as tokens: known since the adapters were loaded."""
        assert self.words is not None
        return self.words


class Request:
    """The prompts that a call's rows have, each different one once.

    Args:
        shelf: the bank's adapters.
        adapter: string, or list of strings with one per row.
    """

    def __init__(self, shelf: Shelf, adapter: Any) -> None:
        names = [adapter] if isinstance(adapter, str) else as_list(adapter)
        if not names:
            raise ValueError(
                "`adapter` should be a name, or a list of names with one per row. Received: "
                f"adapter={received(adapter)}"
            )
        names = [n.decode() if isinstance(n, bytes) else n for n in names]
        self.served: list[Served] = []
        # As they were when the call came, however often a row names them.
        self._adapters: dict[str, BankAdapter | None] = {}
        self._places: dict[int, int] = {}
        places: dict[str, int] = {}
        for row, name in enumerate(names):
            if not isinstance(name, str):
                raise _unknown(name, row, "")
            if name not in places:
                places[name] = self._place(self._served(shelf, name, row))
        ids = np.array([places[name] for name in names], "int32")
        # One name stands for all rows, however many there are.
        self.task_ids: Any = int(ids[0]) if isinstance(adapter, str) else ids

    def _place(self, served: Served) -> int:
        """The place of what is served among those that differ; two names may mean one."""
        place = self._places.setdefault(served.key, len(self.served))
        if place == len(self.served):
            self.served.append(served)
        return place

    def _served(self, shelf: Shelf, name: str, row: int) -> Served:
        """What a row's name means: an adapter, or an adapter and a task of its."""
        of, slash, task = name.partition("/")
        if of not in self._adapters:
            self._adapters[of] = _adapter(shelf, of, row)
        adapter = self._adapters[of]
        if adapter is None:
            raise _unknown(name, row, f"; the bank has {_some(shelf.names)}")
        tasks, places = adapter.task_names, adapter.task_places
        if not slash and tasks is None:
            return Served(adapter, None)
        if not slash and tasks is not None:
            if len(tasks) == 1:
                return Served(adapter, 0)
            raise _unknown(name, row, f", which has several tasks: name one, as '{of}/{tasks[0]}'")
        if task in places:
            return Served(adapter, places[task])
        if task.isdecimal() and len(task) < 10 and int(task) < len(places):
            return Served(adapter, int(task))
        raise _unknown(name, row, f"; {of!r} has the tasks {received(list(places))}")

    def rows_of(self, x: dict[str, Any], rows: int) -> list[Served]:
        """What answers each of the rows, from their checked inputs."""
        tasks = np.broadcast_to(np.asarray(x.get("task_ids", 0)), (rows,))
        return [self.served[k] for k in tasks]

    def inputs(self, inputs: ModelInputs) -> CallInputs:
        """The call's inputs.

        Args:
            inputs: those of a model of the adapters' kind.
        """
        served = self.served
        submodules = max(s.adapter.config.submodules for s in served)
        # What no row may pass: each row's own length is compared when its prompt is put in. Prompts
        # are cut for the longest one.
        shortest, longest = (f(s.adapter.length for s in served) for f in (min, max))
        least = min(s.adapter.config.submodules for s in served)
        given: dict[str, Any] = {
            "num_transformer_submodules": least,
            "states_have_prompt": least >= len(inputs.splice.token_inputs),
            "at": max(s.adapter.at for s in served),
        }
        splice: Any = View(inputs.splice, num_virtual_tokens=shortest, **given)
        names = [s.name for s in served]
        words = _words(served, names)
        config = MultitaskPromptTuningConfig(
            task_type=inputs.config.task_type,
            num_virtual_tokens=shortest,
            num_tasks=len(served),
            task_names=names,
            num_transformer_submodules=submodules,
            label_words={n: w for n, w in zip(names, words.words, strict=True) if w} or None,
        )
        packing = inputs.packing
        if packing is not None:
            cut: Any = View(inputs.splice, **{**given, "num_virtual_tokens": longest})
            packing = dataclasses.replace(
                packing, splice=splice if packing.truncation_side is None else cut
            )
        return CallInputs(
            config, splice, inputs.preprocessor, inputs.takes_mask_positions, packing, words=words
        )


def _adapter(shelf: Shelf, name: str, row: int) -> BankAdapter | None:
    try:
        return shelf.get(name)
    except (ValueError, OSError) as error:
        raise ValueError(
            "`adapter` should name an adapter that can be read in each row. Received: "
            f"{received(name)} in row {row}: {error}"
        ) from error


def _some(names: list[str]) -> str:
    """Some adapters' names, in words."""
    if not names:
        return "none in memory"
    return f"{names[-8:]}{' and others' if len(names) > 8 else ''} in memory"


def _unknown(name: Any, row: int, why: str) -> ValueError:
    return ValueError(
        "`adapter` should name an adapter of the bank in each row, or one and a task of its, as "
        f"'adapter/task'. Received: {received(name)} in row {row}{why}"
    )


def _words(served: Sequence[Served], names: list[str]) -> LabelWords:
    """The label words of the call's tasks, from those of their adapters."""
    found = [(s.adapter.words, s.task or 0) for s in served]
    words = [[] if w is None else w.words[k] for w, k in found]
    most = max(map(len, words))
    longest = max((w.longest for w, _ in found if w is not None), default=0)
    ids = np.zeros((len(served), most, longest), "int32")
    sizes = np.zeros((len(served), most), "int32")
    for row, (own, k) in enumerate(found):
        if own is not None:
            count = len(own.words[k])
            ids[row, :count, : own.longest] = own.token_ids[k, :count]
            sizes[row, :count] = own.sizes[k, :count]
    return LabelWords(names, words, ids, sizes)
