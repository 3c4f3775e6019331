"""One linear head per task, each with its own number of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_flag, check_size
from keras_mpt.prompts.combine import safe_task_ids
from keras_mpt.prompts.replace_weights import replace_weights
from keras_mpt.types import Tensor

# The logit of a class that a task does not have: its probability is 0 in float32.
NO_CLASS = -1e9


@keras.saving.register_keras_serializable(package="keras_mpt")
class TaskHeads(keras.layers.Layer):
    """T linear heads side by side in one matrix, (d, C_0 + … + C_{T−1}).

    Every row is multiplied by its own task's columns. Where a task has fewer classes than the
    largest, the rest of its logits are −1e9. An id that no task has gives NaN.

    Args:
        num_classes: list of T ints. Each task's number of classes.
        use_bias: bool. Whether the heads have biases. Defaults to `True`.
        **kwargs: those of `keras.layers.Layer`.

    Call arguments:
        features: float tensor (B, d), or (B, S, d) for a class per token.
        task_ids: integer tensor (B,).

    Returns:
        A float tensor (B, max(num_classes)), or (B, S, max(num_classes)).

    Example:
        ```python
        heads = keras_mpt.models.TaskHeads([2, 3])
        logits = heads(np.zeros((2, 8), "float32"), np.array([0, 1]))
        assert logits.shape == (2, 3)
        ```
    """

    def __init__(self, num_classes: Sequence[int], use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.use_bias = check_flag("use_bias", use_bias)
        self._set_num_classes(num_classes)

    def _set_num_classes(self, num_classes: Sequence[int]) -> None:
        self.num_classes = [check_size("num_classes", n) for n in num_classes]
        # Column of class c of task k, or 0 with `has_class` False.
        # Task k's columns are those from `_ends[k]` to `_ends[k + 1]`.
        self._ends = np.cumsum([0, *self.num_classes])
        classes = np.arange(max(self.num_classes))
        self._has_class = classes < np.array(self.num_classes)[:, None]
        columns = self._ends[:-1, None] + classes
        self._columns = np.where(self._has_class, columns, 0).astype("int32")

    def build(
        self,
        features_shape: tuple[int | None, ...],
        task_ids_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Makes the matrix and the biases."""
        total = sum(self.num_classes)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features_shape[-1], total),
            initializer=_kernel_initializer(),
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(total,), initializer="zeros")

    def call(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """Each row's logits under its own task's head."""
        safe_ids, poison = safe_task_ids(task_ids, len(self.num_classes))

        def per_row(table: Tensor) -> Tensor:
            return ops.take(ops.convert_to_tensor(table), safe_ids, axis=0)

        def per_token(rows: Tensor) -> Tensor:
            """With an axis of one for the tokens, where the features have one."""
            return ops.expand_dims(rows, 1) if len(features.shape) == 3 else rows

        columns = per_row(self._columns)
        logits = _products(features, ops.take(ops.transpose(self.kernel), columns, axis=0))
        if self.bias is not None:
            # Not of the variable itself, whose gradient TensorFlow would then make a sparse one.
            bias = ops.reshape(self.bias, (-1,))
            logits = logits + per_token(ops.take(bias, columns, axis=0))
        has_class = per_token(per_row(self._has_class))
        logits = ops.where(has_class, logits, ops.cast(NO_CLASS, logits.dtype))
        return logits + per_token(ops.cast(poison, logits.dtype)[:, None])

    def columns(self, task: int) -> slice:
        """Where in the matrix and the biases a task's head stands.

        Args:
            task: int. Its id.

        Returns:
            A slice of the last axis.
        """
        return slice(int(self._ends[task]), int(self._ends[task + 1]))

    def replace_tasks(self, sources: Sequence[int | None], num_classes: Sequence[int]) -> None:
        """Gives the layer other tasks: copies of its heads, and fresh ones.

        Args:
            sources: list with an entry per new task: the id of the task whose head it gets, or
                `None` for a fresh head.
            num_classes: list with an entry per new task: its number of classes.

        Example:
            ```python
            heads = keras_mpt.models.TaskHeads([2, 3])
            heads.build((None, 8))
            heads.replace_tasks([1, None], [3, 4])
            assert heads.kernel.shape == (8, 7)
            ```
        """
        values = {}
        for variable in self.weights:
            old, parts = to_numpy(variable), []
            for source, classes in zip(sources, num_classes, strict=True):
                if source is not None:
                    parts.append(old[..., self.columns(source)])
                    continue
                shape = (*old.shape[:-1], classes)
                start = _kernel_initializer()(shape) if len(shape) == 2 else np.zeros(shape)
                parts.append(to_numpy(start).astype(old.dtype))
            values[variable.name] = np.concatenate(parts, axis=-1)
        replace_weights(self, values)
        self._set_num_classes(num_classes)

    def compute_output_shape(
        self, features_shape: tuple[int | None, ...], task_ids_shape: tuple[int | None, ...] | None
    ) -> tuple[Any, ...]:
        """(B, max(num_classes)), or (B, S, max(num_classes))."""
        return (*features_shape[:-1], max(self.num_classes))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "use_bias": self.use_bias,
        }


def _products(features: Tensor, heads: Tensor) -> Tensor:
    """Each row's features, (B, d) or (B, S, d), times its own head, (B, C, d).

    Sums of products, not a matrix product: the last bits of that change with the number of classes,
    and a new task must not change the logits of the others.
    """
    if len(features.shape) == 2:
        return ops.sum(features[:, None] * heads, axis=-1)
    classes = [heads[:, c : c + 1] for c in range(heads.shape[1])]
    return ops.stack([ops.sum(features * head, axis=-1) for head in classes], axis=-1)


def _kernel_initializer() -> keras.Initializer:
    """As a keras-hub classifier's head starts; one object draws the same numbers every time."""
    return keras.initializers.TruncatedNormal(stddev=0.02)
