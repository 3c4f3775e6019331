"""Trained linear heads: one that all tasks share, or one per task."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, cast

import keras
import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import is_integer
from keras_mpt.heads.head import Head, refuse_classes
from keras_mpt.heads.num_classes import not_classes
from keras_mpt.heads.task_heads import TaskHeads
from keras_mpt.types import Tensor


class LinearHead(Head):
    """A linear output layer, and trained layers that may stand below it.

    Args:
        use_bias: bool. Whether the output layer has a bias.
        prefix: string. What the names of a head's weights begin with in an adapter.
    """

    def __init__(self, use_bias: bool, prefix: str) -> None:
        self.use_bias = use_bias
        self._prefix = prefix
        # The trained layers by their names in an adapter, the output last; `build` makes that one.
        self._layers: dict[str, keras.layers.Layer] = {}

    @property
    def layer(self) -> keras.layers.Layer:
        """The output layer of a built head."""
        return list(self._layers.values())[-1]

    @abc.abstractmethod
    def _output_layer(self, width: int) -> keras.layers.Layer:
        """A fresh, built output layer on features of a width."""

    @abc.abstractmethod
    def __call__(self, features: Tensor, task_ids: Tensor | None) -> Tensor:
        """The logits.

        Args:
            features: float tensor (B, d) or (B, S, d).
            task_ids: integer tensor (B,) or (), or `None` without tasks.

        Returns:
            A float tensor (B, C) or (B, S, C).
        """

    @property
    @abc.abstractmethod
    def max_classes(self) -> int:
        """C, the width of the logits."""

    def classes_of_rows(self, task_ids: Tensor | None, rows: int) -> np.ndarray:
        """How many classes each row's task has, (B,)."""
        counts = self.num_classes
        if not isinstance(counts, list):
            return np.full(rows, counts)
        return np.broadcast_to(np.array(counts)[task_ids], rows)

    @abc.abstractmethod
    def _part(self, task: int | None) -> slice:
        """Which columns of the output are a task's."""

    def build(
        self, width: int, names: Sequence[str], below: Iterable[keras.layers.Layer] = ()
    ) -> None:
        """Makes the output layer.

        Args:
            width: int. d, the width of the features.
            names: the layers' names in an adapter, the output's last.
            below: the trained layers below the output, the lowest first.
        """
        # Only now: a layer draws its seed as it is made, and the prompt's came before.
        self._layers = dict(zip(names, [*below, self._output_layer(width)], strict=True))

    def weights(self) -> dict[str, keras.Variable]:
        """The trained variables by the name that they have in an adapter."""
        return {
            f"{self._prefix}.{name}.{'weight' if v.name == 'kernel' else v.name}": v
            for name, layer in self._layers.items()
            for v in layer.weights
        }

    def copy_to(self, other: Self, sources: Sequence[int | None]) -> None:
        """Copies the layers below the output, and the parts of the output that have a source."""
        own = self.weights()
        for name, variable in other.weights().items():
            value = to_numpy(own[name])
            if all(variable is not v for v in other.layer.weights):
                variable.assign(value)
                continue
            start = np.array(to_numpy(variable))
            for task, source in enumerate(sources):
                if source is not None:
                    start[..., other._part(task)] = value[..., self._part(source)]
            variable.assign(start)


class SharedHead(LinearHead):
    """One output layer for all tasks.

    Args:
        num_classes: int. C.
        use_bias: bool.
        prefix: as in `LinearHead`.
        user_chosen: bool. Whether a user chooses the classes, as of no span. Defaults to `True`.
    """

    def __init__(
        self, num_classes: int, use_bias: bool, prefix: str, user_chosen: bool = True
    ) -> None:
        super().__init__(use_bias, prefix)
        self._num_classes, self._user_chosen = num_classes, user_chosen

    @property
    def num_classes(self) -> int:
        """C."""
        return self._num_classes

    @property
    def max_classes(self) -> int:
        """C."""
        return self._num_classes

    @property
    def has_classes(self) -> bool:
        """Whether a user chooses the classes."""
        return self._user_chosen

    def __call__(self, features: Tensor, task_ids: Tensor | None) -> Tensor:
        """The logits, (B, C) or (B, S, C)."""
        return self.layer(features)

    def classes_with(self, num_classes: Any, source: int | None, from_: Any) -> int:
        """C, where no others are given."""
        if num_classes is not None:
            refuse_classes(num_classes)
        return self._num_classes

    def classes_of(self, tasks: Sequence[int]) -> int:
        """C."""
        return self._num_classes

    def replace_tasks(
        self, sources: Sequence[int | None], num_classes: int | list[int] | None
    ) -> None:
        """Nothing is replaced: new tasks share the head too."""

    def shared_layers(self) -> list[keras.layers.Layer]:
        """All of them."""
        return list(self._layers.values())

    def _output_layer(self, width: int) -> keras.layers.Layer:
        layer = keras.layers.Dense(self._num_classes, **_settings(self.use_bias))
        layer.build((None, width))
        return layer

    def _part(self, task: int | None) -> slice:
        return slice(None)


class HeadPerTask(LinearHead):
    """An output layer for each task, in one matrix.

    Args:
        num_classes: list of T ints.
        use_bias: bool.
        prefix: as in `LinearHead`.
    """

    def __init__(self, num_classes: list[int], use_bias: bool, prefix: str) -> None:
        super().__init__(use_bias, prefix)
        self._num_classes = num_classes

    @property
    def num_classes(self) -> list[int]:
        """Each task's number of classes."""
        return list(self._num_classes)

    @property
    def max_classes(self) -> int:
        """C, the most classes of a task."""
        return max(self.num_classes)

    def __call__(self, features: Tensor, task_ids: Tensor | None) -> Tensor:
        """Each row's logits under its own task's head, (B, C) or (B, S, C)."""
        return self.layer(features, ops.broadcast_to(task_ids, (ops.shape(features)[0],)))

    def classes_with(self, num_classes: Any, source: int | None, from_: Any) -> list[int]:
        """All numbers of classes once a task is added, after checking the new one's."""
        if num_classes is None and source is not None:
            return [*self.num_classes, self.num_classes[source]]
        if num_classes is None:
            raise ValueError(
                "`num_classes` should be given: each task has a head, and only from_=<a task> "
                f"brings one along. Received: num_classes=None with from_={from_!r}"
            )
        if isinstance(num_classes, (list, tuple, Mapping)):
            raise ValueError(
                "`num_classes` should be one positive integer, the new task's. Received: "
                f"num_classes={num_classes!r}"
            )
        if not is_integer(num_classes, least=1):
            raise not_classes(num_classes)
        return [*self.num_classes, int(num_classes)]

    def classes_of(self, tasks: Sequence[int]) -> list[int]:
        """The tasks' numbers of classes."""
        return [self._num_classes[task] for task in tasks]

    def replace_tasks(
        self, sources: Sequence[int | None], num_classes: int | list[int] | None
    ) -> None:
        """Gives each task the head of its source, or a fresh one where that is `None`."""
        self._num_classes = cast(list[int], num_classes)
        self.layer.replace_tasks(sources, self._num_classes)

    def shared_layers(self) -> list[keras.layers.Layer]:
        """Those below the output."""
        return list(self._layers.values())[:-1]

    def parts_of(self, tasks: Sequence[int]) -> list[tuple[keras.Variable, np.ndarray]]:
        """The tasks' columns of the matrix, and their biases."""
        mask = np.zeros(sum(self._num_classes), bool)
        for task in tasks:
            mask[self._part(task)] = True
        return [(variable, mask) for variable in self.layer.weights]

    def _output_layer(self, width: int) -> keras.layers.Layer:
        layer = TaskHeads(self._num_classes, **_settings(self.use_bias))
        layer.build((None, width), (None,))
        return layer

    def _part(self, task: int | None) -> slice:
        assert task is not None
        found: slice = self.layer.columns(task)
        return found


def linear_head(num_classes: int | list[int], prefix: str, use_bias: bool = True) -> LinearHead:
    """A head per task, or one that all share, not built yet.

    Args:
        num_classes: list of T ints, or int.
        prefix: as in `LinearHead`.
        use_bias: bool. Defaults to `True`.
    """
    if isinstance(num_classes, int):
        return SharedHead(num_classes, use_bias, prefix)
    return HeadPerTask(num_classes, use_bias, prefix)


def _settings(use_bias: bool) -> dict[str, Any]:
    # Logits are float32 whatever the backbone computes in, for a stable softmax.
    return {"use_bias": use_bias, "name": "logits", "dtype": "float32"}
