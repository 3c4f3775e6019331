"""One soft prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.files.state_dict import checked_values
from keras_mpt.prompts.combine import gather


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptEmbedding(keras.layers.Layer):
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
        embeddings_initializer: Any = "random_normal",
        **kwargs: Any,
    ) -> None:
        sizes = {
            "num_virtual_tokens": num_virtual_tokens,
            "token_dim": token_dim,
            "num_transformer_submodules": num_transformer_submodules,
        }
        check_sizes(sizes)
        super().__init__(**kwargs)
        self.num_virtual_tokens = num_virtual_tokens
        self.token_dim = token_dim
        self.num_transformer_submodules = num_transformer_submodules
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    # Whether P is trained: where tasks share it, it may be frozen while their factors are trained.
    train_shared: bool = True

    @property
    def total_virtual_tokens(self) -> int:
        """M·L, the rows of P."""
        return self.num_transformer_submodules * self.num_virtual_tokens

    def build(self, input_shape: Any = None) -> None:
        """Makes P; the shape of the input plays no part."""
        self.prompt_embeddings = self.add_weight(
            name="prompt_embeddings",
            shape=(self.total_virtual_tokens, self.token_dim),
            initializer=self.embeddings_initializer,
            trainable=self.train_shared,
        )

    def call(self, indices: Any) -> Any:
        """The rows `indices` of P."""
        return ops.cast(gather(self.prompt_embeddings, indices), self.compute_dtype)

    def indices(self, batch_size: Any) -> Any:
        """0, 1, …, M·L−1 for each of `batch_size` rows: (B, M·L), int32.

        Args:
            batch_size: int or scalar integer tensor. B.

        Returns:
            An int32 tensor.
        """
        rows = ops.arange(self.total_virtual_tokens, dtype="int32")
        return ops.broadcast_to(rows[None], (batch_size, self.total_virtual_tokens))

    def compute_output_shape(self, indices_shape: Any) -> tuple[Any, ...]:
        """(B, N, d)."""
        return (*indices_shape, self.token_dim)

    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights under PEFT's names.

        Returns:
            `{name: float32 array}`.

        Example:
            ```python
            layer = keras_mpt.PromptEmbedding(num_virtual_tokens=4, token_dim=8)
            assert list(layer.state_dict()) == ["prompt_embeddings"]
            ```
        """
        weights = self.named_weights()
        return {k: ops.convert_to_numpy(v).astype("float32") for k, v in weights.items()}

    def load_state_dict(self, state: Mapping[str, Any], source: str = "state") -> None:
        """Sets all weights from arrays under PEFT's names.

        Everything is checked before anything is changed.

        Args:
            state: mapping of name to array of any float dtype, float16 and bfloat16 included.
            source: string. Where `state` comes from, for error messages. Defaults to `"state"`.

        Raises:
            ValueError: a missing or unknown name, another shape, rank or dtype, or values that are
                not finite. The message names the key, what was expected and what was found.

        Example:
            ```python
            layer = keras_mpt.PromptEmbedding(num_virtual_tokens=4, token_dim=8)
            layer.load_state_dict({"prompt_embeddings": np.zeros((4, 8), "float16")})
            ```
        """
        weights = self.named_weights()
        values = checked_values(state, {k: tuple(v.shape) for k, v in weights.items()}, source)
        for name, variable in weights.items():
            variable.assign(values[name])

    def named_weights(self) -> dict[str, Any]:
        """The variables under PEFT's names, in the order in which they are written.

        Returns:
            `{name: keras.Variable}`.
        """
        if not self.built:
            self.build()
        return {"prompt_embeddings": self.prompt_embeddings}

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_virtual_tokens": self.num_virtual_tokens,
            "token_dim": self.token_dim,
            "num_transformer_submodules": self.num_transformer_submodules,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }


def check_sizes(sizes: Mapping[str, Any]) -> None:
    """Refuses anything but positive integers."""
    for name, size in sizes.items():
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
            raise ValueError(f"`{name}` should be a positive integer. Received: {name}={size!r}")
