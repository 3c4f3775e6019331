"""One soft prompt."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mpt.prompts.combine import gather
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.types import TaskIds, Tensor


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptEmbedding(Prompt):
    """A learned prompt P of M·L rows, each as wide as a token embedding.

    Args:
        num_virtual_tokens: int. L, the length of the prompt.
        token_dim: int. d, the width of the token embedding.
        num_transformer_submodules: int. M: 2 where an encoder-decoder's decoder is prompted too.
            Defaults to `1`.
        embeddings_initializer: initializer of P. Defaults to `"random_normal"`.
        **kwargs: those of `keras.layers.Layer`. The variables are float32 under a mixed policy and
            are cast to the compute dtype when used.

    Call arguments:
        indices: integer tensor of shape (B, N): which rows of P. All of them, in order, is
            `layer.indices(B)`.

    Returns:
        A float tensor of shape (B, N, d) in the layer's compute dtype.

    Example:
        ```python
        layer = keras_mpt.PromptEmbedding(num_virtual_tokens=4, token_dim=8)
        assert layer(layer.indices(2)).shape == (2, 4, 8)
        ```

    Source: Lester et al. 2021 (arXiv 2104.08691); PEFT `tuners/prompt_tuning/model.py`.
    """

    def __init__(
        self,
        num_virtual_tokens: int,
        token_dim: int,
        num_transformer_submodules: int = 1,
        embeddings_initializer: str | keras.Initializer = "random_normal",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_virtual_tokens,
            token_dim,
            num_transformer_submodules,
            embeddings_initializer,
            **kwargs,
        )

    @property
    def tasks(self) -> None:
        """`None`: there is one prompt."""
        return None

    def call(self, indices: Tensor) -> Tensor:
        """The rows `indices` of P."""
        return ops.cast(gather(self.prompt_embeddings, indices), self.compute_dtype)

    def for_rows(self, task_ids: TaskIds | None, batch_size: int | Tensor) -> Tensor:
        """P for each row; see `Prompt.for_rows`."""
        if task_ids is not None:
            raise ValueError(
                "`task_ids` should be None: this layer has one prompt and no tasks. Received: "
                f"task_ids={task_ids!r}"
            )
        return self(self.indices(batch_size))

    def indices(self, batch_size: int | Tensor) -> Tensor:
        """0, 1, …, M·L−1 for each of `batch_size` rows: (B, M·L), int32.

        Args:
            batch_size: int or scalar integer tensor. B.

        Returns:
            An int32 tensor.
        """
        rows = ops.arange(self.total_virtual_tokens, dtype="int32")
        return ops.broadcast_to(rows[None], (batch_size, self.total_virtual_tokens))

    def compute_output_shape(self, indices_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, N, d)."""
        return (*indices_shape, self.token_dim)
