"""What a bank keeps of an adapter: numbers, and no layers."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import numpy as np

from keras_mpt.adapters.backbone_identity import backbone_difference
from keras_mpt.adapters.base_of_peft import warn_of_other_base
from keras_mpt.adapters.reading import Adapter
from keras_mpt.adapters.weights_of_base import without_base
from keras_mpt.bank.kind import Kind
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.files.config_files import OWN_CONFIG_NAME
from keras_mpt.files.state_dict import checked_values
from keras_mpt.fitting.label_words import LabelWords
from keras_mpt.heads.num_classes import checked_num_classes
from keras_mpt.models.label_fields import check_label_fields
from keras_mpt.models.prompt_tune import head_arguments
from keras_mpt.splicing.positions import default_prompt_position
from keras_mpt.splicing.virtual_ids import VirtualIds

# Each adapter that is read has a number of its own: one that replaces another is another.
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True, eq=False)
class BankAdapter:
    """An adapter's numbers, as the model has them.

    Attributes:
        name: string. What rows call it.
        number: int. No other adapter's, not even one's that had this name before.
        kind: what stands after the backbone.
        config: its config.
        state: dict of the prompt's arrays by PEFT's names, float32.
        head: dict of the head's arrays by their names in a file, kernels as Keras has them.
        num_classes: int or list of ints, or `None` without a head of classes.
        words: its tasks' `label_words`, as tokens.
        at: int. Behind how many of a row's tokens its prompt stands.
    """

    name: str
    number: int
    kind: Kind
    config: PromptTuningConfig
    state: dict[str, np.ndarray]
    head: dict[str, np.ndarray]
    num_classes: int | list[int] | None
    words: LabelWords | None
    at: int

    @property
    def nbytes(self) -> int:
        """How much memory its numbers take."""
        return sum(a.nbytes for a in (*self.state.values(), *self.head.values()))

    @property
    def length(self) -> int:
        """L."""
        assert self.config.num_virtual_tokens is not None
        return self.config.num_virtual_tokens

    @functools.cached_property
    def task_names(self) -> list[str] | None:
        """Its tasks, or `None` where it has one prompt and no tasks."""
        config = self.config
        return config.names if isinstance(config, MultitaskPromptTuningConfig) else None

    @functools.cached_property
    def task_places(self) -> dict[str, int]:
        """The ids of its tasks by their names."""
        return {name: k for k, name in enumerate(self.task_names or [])}

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """Where in its head each task's classes end."""
        counts = self.num_classes if isinstance(self.num_classes, list) else [0]
        return np.cumsum([0, *counts])

    def prompt(self, task: int | None) -> np.ndarray:
        """A task's prompt P ∘ (cols · rows), float32 (L, M·d): the token inputs' side by side."""
        prompt = self.state["prompt_embeddings"]
        if task is not None:
            cols, rows = (self.state[f"prefix_task_{name}"][task] for name in ("cols", "rows"))
            prompt = prompt * (cols @ rows)
        return np.concatenate(np.split(prompt, self.config.submodules), axis=1)

    def columns(self, task: int | None) -> slice:
        """Which outputs of its head are a task's."""
        if not isinstance(self.num_classes, list):
            return slice(None)
        return slice(int(self._ends[task or 0]), int(self._ends[(task or 0) + 1]))

    def label_names(self, task: int | None) -> list[str] | None:
        """The names of a task's classes, or `None`."""
        given, names = self.config.label_names, self.task_names
        found = given if names is None or task is None else (given or {}).get(names[task])
        return None if found is None else list(found)


class Served(NamedTuple):
    """What a row is answered by: an adapter, and one of its tasks, `None` where it has none."""

    adapter: BankAdapter
    task: int | None

    @property
    def name(self) -> str:
        """As rows may name it."""
        names = self.adapter.task_names
        of = "" if names is None or self.task is None else f"/{names[self.task]}"
        return self.adapter.name + of

    @property
    def num_classes(self) -> int | None:
        """How many classes the row's task has, or `None` without classes."""
        found = self.adapter.num_classes
        return found[self.task or 0] if isinstance(found, list) else found

    @property
    def key(self) -> int:
        """Of what is kept of its prompt: the same number means the same prompt."""
        return (self.adapter.number << 32) | (0 if self.task is None else self.task + 1)


def bank_adapter(name: str, adapter: Adapter, kind: Kind) -> BankAdapter:
    """What is kept of an adapter that was read.

    Args:
        name: string. What rows call it.
        adapter: an adapter of the backbone.
        kind: its kind.

    Raises:
        ValueError: words or weights that do not fit.
    """
    config, source, splice = adapter.config, adapter.source, kind.splice
    num_classes = None
    if kind.has_classes:
        given = head_arguments(adapter).get("num_classes", 0)
        num_classes = checked_num_classes(given, config)
    classes = num_classes if isinstance(num_classes, int) else sum(num_classes or [])
    # What names and words may be, as of a model of its own.
    inputs = dataclasses.replace(kind.model.model_inputs, config=config)
    check_label_fields(inputs, kind.head, num_classes)
    shapes = _prompt_shapes(config, splice.token_dim)
    heads = kind.head_shapes(classes)
    state = without_base(adapter.state, {**shapes, **heads}, kind.model.backbone, source)
    values = checked_values(state, {**shapes, **heads}, source)
    prompt = values["prompt_embeddings"] / np.repeat(
        kind.embedding_scale[: config.submodules], config.num_virtual_tokens or 1, axis=0
    )
    state = {n: np.asarray(values[n], "float32") for n in shapes} | {"prompt_embeddings": prompt}
    head = {n: values[n].T if values[n].ndim == 2 else values[n] for n in heads}
    head = {n: np.ascontiguousarray(a, "float32") for n, a in head.items()}
    has_words = config.label_words and kind.model.preprocessor is not None
    words = inputs.label_words if has_words else None
    position = config.prompt_position or default_prompt_position(kind.model.backbone)
    if position == "after":
        raise ValueError(
            "`prompt_position` of an adapter should be 'before' or 'after_start' in a bank: its "
            "rows hold their prompts in front of their text. Received: prompt_position='after' in "
            f"{source!r}"
        )
    at = {"before": 0, "after_start": 1}[position]
    number = next(_numbers)
    return BankAdapter(name, number, kind, config, state, head, num_classes, words, at)


def _prompt_shapes(config: PromptTuningConfig, width: int) -> dict[str, tuple[int, ...]]:
    length = config.total_virtual_tokens
    shapes: dict[str, tuple[int, ...]] = {"prompt_embeddings": (length, width)}
    if isinstance(config, MultitaskPromptTuningConfig):
        shapes["prefix_task_cols"] = (config.num_tasks, length, config.num_ranks)
        shapes["prefix_task_rows"] = (config.num_tasks, config.num_ranks, width)
    return shapes


def check_backbone(adapter: Adapter, splice: VirtualIds) -> None:
    """Refuses an adapter of another backbone, or with prompts that it has no place for.

    Args:
        adapter: an adapter that was read.
        splice: the bank's splice.

    Raises:
        ValueError: such an adapter.
    """
    config, source, backbone = adapter.config, adapter.source, splice.backbone
    wanted: list[tuple[str, Any, Any, bool]] = [
        ("token_dim", splice.token_dim, config.token_dim, False),
        ("num_transformer_submodules", splice.submodules, config.submodules, True),
    ]
    limit = splice.max_sequence_length
    if limit is not None:
        wanted.append(("num_virtual_tokens", limit - 1, config.num_virtual_tokens, True))
    for name, most, found, may_be_less in wanted:
        if found is not None and (found > most if may_be_less else found != most):
            least = "at most " if may_be_less else ""
            raise ValueError(
                f"`{name}` of an adapter should be {least}{most}, as the bank's backbone has it. "
                f"Received: {name}={found} in {source!r}"
            )
    difference = backbone_difference(adapter.own_fields.get("backbone"), backbone)
    if difference is not None:
        raise ValueError(
            "The bank's backbone should be the one that the adapter was trained on; without "
            f"`backbone` in its {OWN_CONFIG_NAME} any will do. Received: {source!r}, trained on "
            f"{difference}"
        )
    warn_of_other_base(backbone, config.base_model_name_or_path)
