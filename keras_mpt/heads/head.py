"""What stands after a frozen backbone, and what becomes of it when tasks come and go."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Sequence
from typing import Any, NoReturn, Self

import keras
import numpy as np

from keras_mpt.fitting.frozen import freeze
from keras_mpt.layer_settings import apply_settings, read_settings
from keras_mpt.types import Tensor


class Head(abc.ABC):
    """From a backbone's features to logits: one of four kinds.

    `NoHead` gives the backbone's own outputs, `FrozenHead` has keras-hub's own layers, `SharedHead`
    is trained for all tasks together, `HeadPerTask` for each by itself. A model holds one.
    """

    @property
    @abc.abstractmethod
    def num_classes(self) -> int | list[int] | None:
        """The number of classes, or a list with each task's; `None` where there are no classes."""

    @abc.abstractmethod
    def weights(self) -> dict[str, keras.Variable]:
        """The trained variables by the name that they have in an adapter."""

    @abc.abstractmethod
    def classes_with(
        self, num_classes: Any, source: int | None, from_: Any
    ) -> int | list[int] | None:
        """All numbers of classes once a task is added, after checking the new one's.

        Args:
            num_classes: what `add_task` was given.
            source: int, the task whose head the new one copies, or `None` for a fresh one.
            from_: what `add_task` was given, for messages.
        """

    @abc.abstractmethod
    def classes_of(self, tasks: Sequence[int]) -> int | list[int] | None:
        """The numbers of classes of a model that has these tasks alone."""

    @abc.abstractmethod
    def replace_tasks(
        self, sources: Sequence[int | None], num_classes: int | list[int] | None
    ) -> None:
        """Gives each task the head of its source, or a fresh one where that is `None`.

        Args:
            sources: list with an entry per new task.
            num_classes: what `classes_with` or `classes_of` gave.
        """

    @abc.abstractmethod
    def copy_to(self, other: Self, sources: Sequence[int | None]) -> None:
        """Copies what was trained to the head of a model of other tasks.

        Args:
            other: a built head of another model.
            sources: list with an entry per task of that model, one where it has no tasks: the task
                of this head's whose part it gets, or `None` to leave it its own.
        """

    def shared_layers(self) -> list[keras.layers.Layer]:
        """The trained layers that are all tasks' together."""
        return []

    def parts_of(self, tasks: Sequence[int]) -> list[tuple[keras.Variable, np.ndarray]]:
        """What some tasks have of variables in which tasks stand side by side.

        Args:
            tasks: list of ints.

        Returns:
            List of (variable, mask): a bool array that broadcasts to the variable's shape.
        """
        return []

    @property
    def has_classes(self) -> bool:
        """Whether the model is a classifier, whose classes a user chooses."""
        return self.num_classes is not None


class UntrainedHead(Head):
    """Nothing that is trained, and no classes that a user could choose."""

    @property
    def num_classes(self) -> None:
        """`None`."""
        return None

    def weights(self) -> dict[str, keras.Variable]:
        """None that are trained."""
        return {}

    def classes_with(self, num_classes: Any, source: int | None, from_: Any) -> None:
        """`None`, where no classes are given."""
        if num_classes is not None:
            refuse_classes(num_classes)

    def classes_of(self, tasks: Sequence[int]) -> None:
        """`None`."""
        return None

    def replace_tasks(
        self, sources: Sequence[int | None], num_classes: int | list[int] | None
    ) -> None:
        """Nothing is replaced."""


class NoHead(UntrainedHead):
    """Nothing: the backbone's own outputs are the model's."""

    def copy_to(self, other: Self, sources: Sequence[int | None]) -> None:
        """Nothing is copied."""


class FrozenHead(UntrainedHead):
    """The layers of a keras-hub task after its backbone, which nothing trains.

    Args:
        graph: `keras.Model` from a list to logits: the backbone's flat outputs, then the inputs
            that the task has beside the backbone's.
        backbone: the backbone. Mostly the graph has no weights but its output embedding.
    """

    def __init__(self, graph: keras.Model, backbone: keras.Model) -> None:
        self.graph = graph
        known = {id(v) for v in backbone.variables}
        self.has_own_weights = any(id(v) not in known for v in graph.variables)
        # Of its row in a `summary`: the output embedding is counted with the backbone.
        sizes = [math.prod(v.shape) for v in graph.weights if id(v) not in known]
        graph.count_params = functools.partial(sum, sizes)

    def __call__(self, inputs: list[Tensor], training: bool | None = None) -> Tensor:
        """Logits of what the graph takes, (B, S, V); of P positions that it is given, (B, P, V)."""
        return self.graph(inputs, training=training)

    def frozen_layer(self) -> keras.Model | None:
        """What a model is to hold of it in Keras's sight: the graph, frozen; mostly nothing.

        Mostly its variables are the backbone's (the output embedding), which Keras would list
        twice; layers of its own, as EdRec's and a masked language model's, are frozen, and saved.
        """
        if not self.has_own_weights:
            return None
        freeze(self.graph)
        return self.graph

    def copy_to(self, other: Self, sources: Sequence[int | None]) -> None:
        """Copies what the layers have of their own: weights, and settings such as an epsilon."""
        if self.has_own_weights:
            other.graph.set_weights(self.graph.get_weights())
            apply_settings(other.graph, read_settings(self.graph))


def refuse_classes(num_classes: Any) -> NoReturn:
    """Says that a model has no head per task."""
    raise ValueError(
        "`num_classes` should be left out: this model has no head per task. Received: "
        f"num_classes={num_classes!r}"
    )
