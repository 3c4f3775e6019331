"""What both prompt layers share: P, its sizes, and its weights under PEFT's names."""

from __future__ import annotations

import abc
from collections.abc import Mapping

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_sizes
from keras_mpt.files.state_dict import checked_values
from keras_mpt.types import Config, TaskIds, Tensor


class Prompt(keras.layers.Layer, abc.ABC):
    """A layer that holds a prompt P of M·L rows, each as wide as a token embedding.

    Args:
        num_virtual_tokens: int. L, the length of the prompt.
        token_dim: int. d, the width of the token embedding.
        num_transformer_submodules: int. M: 2 where an encoder-decoder's decoder is prompted too.
        embeddings_initializer: initializer of P.
        **kwargs: those of `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_virtual_tokens: int,
        token_dim: int,
        num_transformer_submodules: int,
        embeddings_initializer: str | keras.Initializer,
        **kwargs: object,
    ) -> None:
        sizes = {
            "num_virtual_tokens": num_virtual_tokens,
            "token_dim": token_dim,
            "num_transformer_submodules": num_transformer_submodules,
        }
        length, width, submodules = check_sizes(sizes)
        super().__init__(**kwargs)
        self.num_virtual_tokens = length
        self.token_dim = width
        self.num_transformer_submodules = submodules
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    @property
    def total_virtual_tokens(self) -> int:
        """M·L, the rows of P."""
        return self.num_transformer_submodules * self.num_virtual_tokens

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """Of the prompts of some rows: (None, M·L, d)."""
        return (None, self.total_virtual_tokens, self.token_dim)

    def build(self, input_shape: object = None) -> None:
        """Makes P; the shape of the input plays no part."""
        self.prompt_embeddings = self.add_weight(
            name="prompt_embeddings",
            shape=(self.total_virtual_tokens, self.token_dim),
            initializer=self.embeddings_initializer,
        )

    @property
    @abc.abstractmethod
    def tasks(self) -> int | None:
        """T, or `None` where there is one prompt and no tasks."""

    @abc.abstractmethod
    def for_rows(self, task_ids: TaskIds | None, batch_size: int | Tensor) -> Tensor:
        """The prompts of a batch's rows, whether there are tasks or not.

        For models, which have checked the ids where they came in: they are not looked at again.

        Args:
            task_ids: integer tensor (B,) or (); an id outside [0, T) gives NaN. An int, list or
                array is checked. `None` where there are no tasks.
            batch_size: int or scalar integer tensor. B.

        Returns:
            A float tensor (B, M·L, d) in the layer's compute dtype.
        """

    def get_peft_state_dict(self) -> dict[str, np.ndarray]:
        """The weights under PEFT's names.

        Returns:
            `{name: float32 array}`.

        Example:
            ```python
            layer = keras_mpt.PromptEmbedding(num_virtual_tokens=4, token_dim=8)
            assert list(layer.get_peft_state_dict()) == ["prompt_embeddings"]
            ```

        Source: PEFT `get_peft_model_state_dict`.
        """
        return {k: to_numpy(v).astype("float32") for k, v in self.named_weights().items()}

    def set_peft_state_dict(self, state: Mapping[str, Tensor], source: str = "state") -> None:
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
            layer.set_peft_state_dict({"prompt_embeddings": np.zeros((4, 8), "float16")})
            ```

        Source: PEFT `set_peft_model_state_dict`.
        """
        weights = self.named_weights()
        values = checked_values(state, {k: tuple(v.shape) for k, v in weights.items()}, source)
        for name, variable in weights.items():
            variable.assign(values[name])

    def named_weights(self) -> dict[str, keras.Variable]:
        """The variables under PEFT's names, in the order in which they are written.

        Returns:
            `{name: keras.Variable}`.
        """
        if not self.built:
            self.build()
        return {"prompt_embeddings": self.prompt_embeddings}

    def get_config(self) -> Config:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_virtual_tokens": self.num_virtual_tokens,
            "token_dim": self.token_dim,
            "num_transformer_submodules": self.num_transformer_submodules,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
        }
