"""What all prompt-tuned models share."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, ClassVar, Self

import keras
import numpy as np
from keras import ops

from keras_mpt.adapters import adapter
from keras_mpt.adapters.embedding_scale import embedding_scale
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig, config_from_dict
from keras_mpt.config_values import TaskType
from keras_mpt.fitting.frozen import freeze, set_trainable
from keras_mpt.fitting.model_inputs import Inputs
from keras_mpt.models.tasks import Growing
from keras_mpt.prompts.multitask_prompt_embedding import MultitaskPromptEmbedding
from keras_mpt.prompts.prompt_embedding import PromptEmbedding
from keras_mpt.prompts.starts import start_values
from keras_mpt.splicing.positions import default_prompt_position
from keras_mpt.splicing.splice import Splice


class PromptTunedModel(Growing):
    """A frozen backbone, a prompt, and how the two meet; the base of every prompt-tuned model.

    The backbone is set to `trainable=False`: only the prompt (and a head, where a subclass has one)
    is trained.

    Args:
        backbone: a `keras_hub.models.Backbone`, or a functional model with the same input names.
        config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
        preprocessor: keras-hub preprocessor that turns text into the backbone's inputs. Defaults to
            `None`.
        tokenizer: keras-hub tokenizer for a TEXT start, where there is no preprocessor. Defaults to
            `None`.
        initialize: bool. `False` leaves out the config's start, for weights that are loaded next.
            Defaults to `True`.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Raises:
        ValueError: a config that does not fit the backbone.
    """

    # What the model is for; `None` leaves it to the config.
    task_type: ClassVar[TaskType | None] = None

    def __init__(
        self,
        backbone: Any,
        config: PromptTuningConfig,
        preprocessor: Any = None,
        tokenizer: Any = None,
        initialize: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        config = config_for_task(config, self.task_type)
        position = config.prompt_position or default_prompt_position(backbone)
        assert config.num_virtual_tokens is not None
        self.splice = Splice(backbone, config.num_virtual_tokens, config.submodules, position)
        self.config = _fitted_config(config, self.splice, position)
        self.inputs_checked = Inputs(self.config, self.splice, preprocessor)
        self.file_scale = embedding_scale(self.splice, backbone)
        self.backbone = backbone
        freeze(backbone)
        self.preprocessor = preprocessor
        self.prompt = _prompt_layer(self.config, _prompt_dtype(backbone))
        if initialize:
            self._start(tokenizer or getattr(preprocessor, "tokenizer", None))
        self.prompt.trainable = not config.inference_mode

    @property
    def always_frozen(self) -> list[Any]:
        """The layers that nothing trains, whatever `trainable` is set to."""
        return [self.backbone]

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks the inputs while they are still as the caller gave them, then calls the model."""
        return super().__call__(self.inputs_checked.prepare(inputs), *args, **kwargs)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """The model's outputs."""
        return self.call_with_states(inputs, (), training=training)[0]

    def call_with_states(
        self,
        inputs: dict[str, Any],
        layers: tuple[int, ...],
        prompt_positions: bool = False,
        training: bool | None = None,
        prompt: Any = None,
    ) -> tuple[Any, list[Any]]:
        """A call's outputs, and the hidden states behind some of the backbone's layers.

        Args:
            inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids` (B,) integer.
            layers: tuple of ints. Which of the `len(model.splice.hidden_states)` states; the last
                is the backbone's own output. An encoder-decoder's are its decoder's.
            prompt_positions: bool. Whether the states keep the prompt's. Defaults to `False`.
            training: bool. Defaults to `None`.
            prompt: a prompt layer of the same sizes, in the place of the model's own. Defaults to
                `None`.

        Returns:
            The outputs, and a list of float tensors (B, S, d), or (B, L + S, d).
        """
        outputs, states = self.run_backbone(inputs, layers, prompt_positions, training, prompt)
        return self.after_backbone(outputs, inputs, training), states

    def run_backbone(
        self,
        inputs: dict[str, Any],
        layers: tuple[int, ...] = (),
        prompt_positions: bool = False,
        training: bool | None = None,
        prompt: Any = None,
    ) -> tuple[Any, list[Any]]:
        """The backbone on `[prompts; tokens]`.

        Args:
            inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids` (B,) integer.
            layers: as in `call_with_states`. Defaults to `()`.
            prompt_positions: as in `call_with_states`. Defaults to `False`.
            training: bool. Defaults to `None`.
            prompt: as in `call_with_states`. Defaults to `None`.

        Returns:
            Its outputs, a tensor (B, L + S, …) or a dict of them, with prompt positions, and a list
            of hidden states.
        """
        inputs = dict(inputs)
        task_ids = inputs.pop("task_ids", None)
        token_ids = inputs[self.splice.token_inputs[0].name]
        batch_size = ops.shape(token_ids)[0]
        prompt = self.prompt if prompt is None else prompt
        if task_ids is None:
            prompts = prompt(prompt.indices(batch_size))
        else:
            prompts = prompt(ops.broadcast_to(task_ids, (batch_size,)))
        outputs, states = self.splice.with_states(inputs, prompts, layers, training)
        if not prompt_positions:
            states = [self.splice.user_states(s) for s in states]
        return outputs, states

    def after_backbone(
        self, outputs: Any, inputs: dict[str, Any], training: bool | None = None
    ) -> Any:
        """The model's outputs from the backbone's; a subclass with a head overrides it.

        Args:
            outputs: what `run_backbone` gave.
            inputs: dict of a call's inputs.
            training: bool. Defaults to `None`.

        Returns:
            What a call returns.
        """
        return self.splice.user_positions(outputs)

    def backbone_spec(self, inputs: dict[str, Any]) -> Any:
        """The backbone's outputs on symbolic inputs, without prompt positions.

        Needed because JAX cannot compare a symbolic length + L with the backbone's positions.

        Args:
            inputs: dict of `keras.KerasTensor`s, as in a call.

        Returns:
            A `keras.KerasTensor`, or a dict of them.
        """
        own = {
            t.name: inputs.get(t.name, inputs[self.splice.token_inputs[0].name])
            for t in self.backbone.inputs
        }
        return self.backbone.compute_output_spec(own)

    def parameter_count(self) -> int:
        """How many numbers are trained.

        Returns:
            An int.
        """
        return sum(int(np.prod(v.shape)) for v in self.trainable_variables)

    def save_adapter(self, directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Saves what was trained as a PEFT adapter: `adapter_config.json`, and the weights.

        The directory is written whole or not at all. PEFT opens it; keras_mpt's own fields stand in
        a file of their own. PEFT puts every prompt before the tokens, so its logits are the model's
        where `prompt_position` is `"before"`.

        Args:
            directory: string. Where to; made where it is missing.
            overwrite: bool. Whether to replace an adapter that is there. Defaults to `False`.

        Raises:
            ValueError: an adapter is there and `overwrite` is `False`.
        """
        adapter.save(self, directory, overwrite=overwrite)

    def load_adapter(self, directory: str | os.PathLike[str]) -> None:
        """Loads the weights of an adapter that PEFT or keras_mpt saved; it can be trained on.

        Everything is checked before anything is changed.

        Args:
            directory: string. The adapter's directory.

        Raises:
            ValueError: a missing or broken file, or an adapter that does not fit this model.
        """
        adapter.load_into(self, directory)

    def head_weights(self) -> dict[str, Any]:
        """The trained variables outside the prompt, by the name that they have in an adapter."""
        return {}

    def adapter_extras(self) -> dict[str, Any]:
        """JSON values that `load_adapter` needs to rebuild the model, beside the config."""
        return {}

    def _start(self, tokenizer: Any) -> None:
        def embed_tokens(ids: np.ndarray) -> np.ndarray:
            rows = [ops.convert_to_tensor(row, "int32") for row in ids]
            embedded = [self.splice.embed_tokens(row, i) for i, row in enumerate(rows)]
            return np.stack([ops.convert_to_numpy(ops.cast(e, "float32")) for e in embedded])

        values = start_values(
            self.config,
            embed_tokens,
            self.splice.vocabulary_size,
            self.splice.token_dim,
            tokenizer,
            self.file_scale,
        )
        self.prompt.load_state_dict(values, "start")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments; the start itself is in the weights."""
        return {
            **super().get_config(),
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "config": self.config.to_dict(),
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "layers_trainable": [layer.trainable for layer in self.layers],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Rebuilds the model; its weights are loaded afterwards."""
        config = dict(config)
        for name in ("backbone", "preprocessor"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        config["config"] = config_from_dict(config["config"])
        trainable = config.pop("trainable", True), config.pop("layers_trainable", [])
        model = cls(**config, initialize=False)
        set_trainable(model, *trainable)
        # What `load_model(compile=False)` asks for; else Keras compiles next, as it was saved.
        model.optimizer, model.compiled = None, False
        return model


def config_for_task(config: PromptTuningConfig, task_type: TaskType | None) -> PromptTuningConfig:
    """The config with the model's task type: PEFT chooses M, and the model that it opens, by it."""
    if task_type is None or config.task_type == task_type:
        return config
    if config.task_type is not None:
        raise ValueError(
            f"`task_type` should be '{task_type}' or None for this model. Received: "
            f"task_type='{config.task_type}'"
        )
    return dataclasses.replace(config, task_type=task_type)


def _fitted_config(config: PromptTuningConfig, splice: Splice, position: str) -> PromptTuningConfig:
    """The config with what the backbone decides filled in."""
    if config.token_dim not in (None, splice.token_dim):
        raise ValueError(
            f"`token_dim` should be the width of the backbone's token embedding, "
            f"{splice.token_dim}, or None. Received: token_dim={config.token_dim}"
        )
    limit = splice.max_sequence_length
    if limit is not None and splice.num_virtual_tokens >= limit:
        raise ValueError(
            f"`num_virtual_tokens` should leave room for tokens in the backbone's {limit} "
            f"positions. Received: num_virtual_tokens={splice.num_virtual_tokens}"
        )
    return dataclasses.replace(config, token_dim=splice.token_dim, prompt_position=position)


def _prompt_layer(config: PromptTuningConfig, dtype: Any) -> Any:
    sizes: dict[str, Any] = {
        "num_virtual_tokens": config.num_virtual_tokens,
        "token_dim": config.token_dim,
        "num_transformer_submodules": config.submodules,
    }
    if isinstance(config, MultitaskPromptTuningConfig):
        layer = MultitaskPromptEmbedding(
            num_tasks=config.num_tasks,
            num_ranks=config.num_ranks,
            task_init=config.task_init,
            train_shared=config.train_shared,
            **sizes,
            name="prompt",
            dtype=dtype,
        )
    else:
        layer = PromptEmbedding(**sizes, name="prompt", dtype=dtype)
    layer.build()
    return layer


def _prompt_dtype(backbone: Any) -> Any:
    """The backbone's compute dtype over float32 variables: a half-precision prompt trains badly."""
    compute = backbone.compute_dtype
    is_half = compute in ("float16", "bfloat16")
    return keras.DTypePolicy(f"mixed_{compute}") if is_half else compute
