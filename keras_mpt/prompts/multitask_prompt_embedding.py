"""A shared prompt with two thin factors per task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.checks import check_choice, check_flag, check_sizes
from keras_mpt.files.state_dict import checked_values
from keras_mpt.prompts.combine import combine, gather, gather_factors
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.prompts.replace_weights import replace_weights
from keras_mpt.prompts.task_ids import check_task_ids
from keras_mpt.types import Config, TaskIds, Tensor

Initializer = Callable[..., Tensor]


@keras.saving.register_keras_serializable(package="keras_mpt")
class MultitaskPromptEmbedding(Prompt):
    """Task k's prompt P ∘ (cols_k · rows_k), for T tasks that share P.

    T tasks cost M·L·d + T·(M·L·R + R·d) numbers. Only the factors of the tasks in a batch are
    gathered, so a step's memory does not grow as T·L·d.

    How this differs from PEFT: `task_init="ones"` starts with cols · rows = 1, so that every task's
    prompt starts as P; PEFT draws both factors from N(0, 0.02), which starts prompts at about
    0.0004 of P (`task_init="normal"`). Ids out of range are an error in eager code and NaN inside a
    compiled graph, never another task's prompt.

    Args:
        num_virtual_tokens: int. L, the length of the prompt.
        token_dim: int. d, the width of the token embedding.
        num_tasks: int. T.
        num_ranks: int. R, the rank of a task's factors. Defaults to `1`.
        num_transformer_submodules: int. M: 2 where an encoder-decoder's decoder is prompted too.
            Defaults to `1`.
        task_init: `"ones"` or `"normal"`. Defaults to `"ones"`.
        embeddings_initializer: initializer of P. Defaults to `"random_normal"`.
        train_shared: bool. Whether P is trained with the factors; it can be set at any time.
            Defaults to `True`.
        **kwargs: those of `keras.layers.Layer`.

    Call arguments:
        task_ids: int, list, or integer tensor of shape (B,), each in [0, T). A scalar gives one
            row.
        indices: integer tensor of shape (B, M·L), or `None` for all rows of P in order. As in PEFT,
            slot j of the prompt is then `P[indices[:, j]] ∘ (cols · rows)[j]`. Defaults to `None`.

    Returns:
        A float tensor of shape (B, M·L, d) in the layer's compute dtype.

    Raises:
        ValueError: `task_ids` that are missing, not integers, of another rank or out of range.

    Example:
        ```python
        layer = keras_mpt.MultitaskPromptEmbedding(num_virtual_tokens=4, token_dim=8, num_tasks=3)
        assert layer([0, 2]).shape == (2, 4, 8)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; PEFT
    `tuners/multitask_prompt_tuning/model.py`.
    """

    def __init__(
        self,
        num_virtual_tokens: int,
        token_dim: int,
        num_tasks: int,
        num_ranks: int = 1,
        num_transformer_submodules: int = 1,
        task_init: str = "ones",
        embeddings_initializer: str | keras.Initializer = "random_normal",
        train_shared: bool = True,
        **kwargs: Any,
    ) -> None:
        tasks, ranks = check_sizes({"num_tasks": num_tasks, "num_ranks": num_ranks})
        check_choice("task_init", task_init, ("ones", "normal"))
        super().__init__(
            num_virtual_tokens,
            token_dim,
            num_transformer_submodules,
            embeddings_initializer,
            **kwargs,
        )
        self.train_shared = train_shared
        self.num_tasks = tasks
        self.num_ranks = ranks
        self.task_init = task_init

    @property
    def tasks(self) -> int:
        """T."""
        return self.num_tasks

    @property
    def train_shared(self) -> bool:
        """Whether P is trained with the factors."""
        return self._train_shared

    @train_shared.setter
    def train_shared(self, value: bool) -> None:
        self._train_shared = check_flag("train_shared", value)
        self._follow_train_shared()

    @property
    def trainable(self) -> bool:
        """Whether the factors are trained, and P with them where `train_shared` says so."""
        return bool(super().trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        self._follow_train_shared()

    def _follow_train_shared(self) -> None:
        if self.built:
            self.prompt_embeddings.trainable = self.trainable and self.train_shared

    def build(self, input_shape: object = None) -> None:
        """Makes P and the factors; the shape of the input plays no part."""
        super().build(input_shape)
        cols_initializer, rows_initializer = _factor_initializers(self.task_init)
        self.prefix_task_cols = self.add_weight(
            name="prefix_task_cols",
            shape=(self.num_tasks, self.total_virtual_tokens, self.num_ranks),
            initializer=cols_initializer,
        )
        self.prefix_task_rows = self.add_weight(
            name="prefix_task_rows",
            shape=(self.num_tasks, self.num_ranks, self.token_dim),
            initializer=rows_initializer,
        )
        # Frozen only now: TensorFlow takes no gradient of a variable that was made frozen, and so
        # it stands in its place whether it is trained or not.
        self.prompt_embeddings.trainable = self.trainable and self.train_shared

    def __call__(self, task_ids: TaskIds, *args: Any, **kwargs: Any) -> Tensor:
        """Checks the ids while they are still as the caller gave them, then calls the layer."""
        task_ids = check_task_ids(task_ids, self.num_tasks)
        if len(task_ids.shape) == 0:
            task_ids = ops.reshape(task_ids, (1,))
        return super().__call__(task_ids, *args, **kwargs)

    def call(self, task_ids: Tensor, indices: Tensor | None = None) -> Tensor:
        """The prompts of `task_ids`."""
        cols, rows = gather_factors(self.prefix_task_cols, self.prefix_task_rows, task_ids)
        shared = (
            self.prompt_embeddings if indices is None else gather(self.prompt_embeddings, indices)
        )
        shared, cols, rows = (ops.cast(x, self.compute_dtype) for x in (shared, cols, rows))
        return combine(shared, cols, rows)

    def for_rows(self, task_ids: TaskIds | None, batch_size: int | Tensor) -> Tensor:
        """Each row's own task's prompt; see `Prompt.for_rows`."""
        if task_ids is None:
            raise ValueError(
                f"`task_ids` should be given: one of this layer's {self.num_tasks} tasks per row. "
                "Received: task_ids=None"
            )
        if not ops.is_tensor(task_ids):
            task_ids = check_task_ids(task_ids, self.num_tasks)
        # A tensor is not looked at again: models check ids before a graph hides them.
        return super().__call__(ops.broadcast_to(task_ids, (batch_size,)))

    def compute_output_shape(
        self,
        task_ids_shape: tuple[int | None, ...],
        indices_shape: tuple[int | None, ...] | None = None,
    ) -> tuple[int | None, ...]:
        """(B, M·L, d)."""
        return (*task_ids_shape, self.total_virtual_tokens, self.token_dim)

    def named_weights(self) -> dict[str, keras.Variable]:
        """The variables under PEFT's names."""
        shared = super().named_weights()
        return {
            **shared,
            "prefix_task_cols": self.prefix_task_cols,
            "prefix_task_rows": self.prefix_task_rows,
        }

    def parts_of(self, tasks: Sequence[int]) -> list[tuple[keras.Variable, np.ndarray]]:
        """Some tasks' factors, which stand in one variable with the others'.

        Args:
            tasks: list of ints.

        Returns:
            List of (variable, mask): a bool array that broadcasts to the variable's shape.
        """
        mask = np.isin(np.arange(self.num_tasks), list(tasks))[:, None, None]
        self.named_weights()  # Builds a layer that is not yet.
        return [(self.prefix_task_cols, mask), (self.prefix_task_rows, mask)]

    def load_own_variables(self, store: Any) -> None:
        """Loads P and the factors; in older files a frozen P comes last."""
        if len(store["0"].shape) == 3:
            store = {"0": store["2"], "1": store["0"], "2": store["1"]}
        super().load_own_variables(store)

    def replace_tasks(self, cols: Tensor, rows: Tensor) -> None:
        """Gives the layer these tasks in the place of its own; P stays.

        Any number of tasks, so the variables of the factors may change their shape. A model's
        `add_task` and `remove_task` do this and what else the model needs.

        Args:
            cols: float array (T, M·L, R).
            rows: float array (T, R, d).

        Raises:
            ValueError: another shape, dtype, or values that are not finite.

        Example:
            ```python
            layer = keras_mpt.MultitaskPromptEmbedding(4, token_dim=8, num_tasks=2)
            layer.replace_tasks(np.ones((3, 4, 1)), np.ones((3, 1, 8)))
            assert layer.num_tasks == 3
            ```
        """
        num_tasks = max(1, len(cols))
        length, ranks, width = self.total_virtual_tokens, self.num_ranks, self.token_dim
        shapes = {
            "prefix_task_cols": (num_tasks, length, ranks),
            "prefix_task_rows": (num_tasks, ranks, width),
        }
        given = {"prefix_task_cols": np.asarray(cols), "prefix_task_rows": np.asarray(rows)}
        values = checked_values(given, shapes, "cols and rows")
        self.named_weights()  # Builds a layer that is not yet.
        replace_weights(self, values)
        self.num_tasks = num_tasks

    def get_config(self) -> Config:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "num_ranks": self.num_ranks,
            "task_init": self.task_init,
            "train_shared": self.train_shared,
        }


def _factor_initializers(task_init: str) -> tuple[Initializer, Initializer]:
    """Initializers of cols (T, M·L, R) and rows (T, R, d)."""
    normal = keras.initializers.RandomNormal(stddev=0.02)
    if task_init == "normal":
        return normal, keras.initializers.RandomNormal(stddev=0.02)

    # The first rank is 1 · 1; the others are normal · 0. Their product is exactly 1, and all ranks
    # can still leave their start, since no factor's gradient is zero in both.
    def cols(shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        rest = normal((*shape[:2], shape[2] - 1), dtype=dtype)
        return ops.concatenate([ops.ones((*shape[:2], 1), dtype=dtype), rest], axis=2)

    def rows(shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        rest = ops.zeros((shape[0], shape[1] - 1, shape[2]), dtype=dtype)
        return ops.concatenate([ops.ones((shape[0], 1, shape[2]), dtype=dtype), rest], axis=1)

    return cols, rows
