"""A masked language model with prompts."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import keras
from keras import ops

from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.fitting.compile_defaults import default_optimizer
from keras_mpt.fitting.mask_positions import MASK_POSITIONS
from keras_mpt.fitting.masked_tokens import MaskedTokens
from keras_mpt.heads.head import FrozenHead
from keras_mpt.layer_settings import apply_settings, read_settings
from keras_mpt.models.hub_task import from_hub_task, hub_task
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.types import Backbone, Config, Task, Tensor, Tensors


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedMaskedLM(PromptTunedModel):
    """A frozen keras-hub `MaskedLM` with prompts: logits of the tokens at places of each row.

    Its head (mostly a dense layer, a layer norm, the token embedding and a bias) is keras-hub's,
    and as frozen as the backbone. `prompt_tune(masked_lm, config)` copies that of a trained task.

    PEFT has no such task type. An adapter says FEATURE_EXTRACTION, under which PEFT opens it on
    transformers' masked language models, and gives their logits: P alone is in it, and the head is
    the base's.

    Args:
        backbone: a `keras_hub.models.Backbone` that keras-hub has a `MaskedLM` for. It is set to
            `trainable=False`. The head is then as keras-hub starts it, so give `prompt_tune` the
            `MaskedLM` where that is trained.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        head_config: dict. Further arguments of keras-hub's task. Defaults to `None`.
        **kwargs: `preprocessor`, `tokenizer`, `initialize`, `name`, `dtype`: see
            `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of the backbone's inputs, each (B, S) integer, `mask_positions`, (B, P)
            integer, and `task_ids`, (B,) or scalar integer, or task names. Places are those of the
            user's tokens, from 0 on, whether or not a prompt stands before them.
        training: bool. Defaults to `None`.

    Targets of `fit`:
        (B, P) integer: the tokens at `mask_positions`. Rows with fewer than P have 0 for the rest,
        as position and as token, and a `sample_weight` (B, P) of 0. A keras-hub
        `MaskedLMPreprocessor` masks text at random, and makes all three.

    Returns:
        Logits, float (B, P, V).

    Raises:
        ValueError: a backbone without such a task, or wrong inputs.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        base = keras_hub.models.BertMaskedLM(backbone)
        config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=3)
        model = keras_mpt.prompt_tune(base, config)
        ids = np.array([[2, 5, 4, 7, 3]])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
        x |= {"mask_positions": np.array([[2, 0]]), "task_ids": [1]}
        assert model(x).shape == (1, 2, 100)
        model.fit(x, np.array([[6, 0]]), sample_weight=np.array([[1.0, 0.0]]), verbose=0)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; keras-hub `MaskedLM`.
    """

    task_type = TaskType.FEATURE_EXTRACTION
    head: FrozenHead

    def __init__(
        self,
        backbone: Backbone,
        config: PromptTuningConfig,
        head_config: Config | None = None,
        **kwargs: Any,
    ) -> None:
        task, graph = hub_task("MaskedLM", backbone, head_config)
        head = FrozenHead(graph, task.backbone)
        targets = MaskedTokens(int(graph.outputs[0].shape[-1]))
        super().__init__(backbone, config, head=head, targets=targets, **kwargs)
        self.model_inputs = dataclasses.replace(self.model_inputs, takes_mask_positions=True)
        self.head_config = dict(head_config or {})
        self.frozen_head = head.frozen_layer()
        self.finish()
        self.compile()

    @property
    def always_frozen(self) -> list[keras.layers.Layer]:
        """The backbone, and a head with weights of its own."""
        return [self.backbone, *([] if self.frozen_head is None else [self.frozen_head])]

    @classmethod
    def from_task(cls, task: Task, config: PromptTuningConfig, **kwargs: Any) -> Self:
        """A prompt-tuned model on a keras-hub masked language model, with that model's head.

        Args:
            task: a `keras_hub.models.MaskedLM`.
            config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
            **kwargs: those of the constructor.

        Returns:
            A `PromptTunedMaskedLM`.
        """
        return from_hub_task(cls, task, config, **kwargs)

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        weighted_metrics: Any = "auto",
        **kwargs: Any,
    ) -> None:
        """`keras.Model.compile`, with defaults that train.

        Args:
            optimizer: optimizer. Defaults to `"auto"`: Adam at 0.005.
            loss: loss of logits, which names mean too, or a dict of task name to loss. Defaults to
                `"auto"`: sparse cross-entropy on logits, the mean over the places that count by
                their `sample_weight`.
            weighted_metrics: list of metrics, or a dict of task name to list. Defaults to `"auto"`:
                accuracy.
            **kwargs: the other arguments of `keras.Model.compile`.
        """
        optimizer = default_optimizer(optimizer)
        super().compile(optimizer, loss, weighted_metrics=weighted_metrics, **kwargs)

    def after_backbone(
        self, outputs: Tensors, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensor:
        """Logits (B, P, V)."""
        positions = self.splice.places(ops.cast(inputs[MASK_POSITIONS], "int32"))
        return self.head([*keras.tree.flatten(outputs), positions], training=training)

    def compute_output_spec(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> keras.KerasTensor:
        """The logits' shape and dtype."""
        outputs = keras.tree.flatten(self.splice.backbone_spec(inputs))
        return self.head.graph.compute_output_spec([*outputs, inputs[MASK_POSITIONS]])

    def get_config(self) -> Config:
        """The constructor's arguments, and what the head's layers compute with."""
        return {**super().get_config(), "head_settings": read_settings(self.head.graph)}

    @classmethod
    def from_config(cls, config: Config, custom_objects: Any = None) -> Self:
        """Rebuilds the model; its weights are loaded afterwards."""
        config = dict(config)
        settings = config.pop("head_settings", {})
        model = super().from_config(config, custom_objects)
        apply_settings(model.head.graph, settings)
        return model

    def own_arguments(self) -> Config:
        """What keras-hub's task is made with."""
        return {"head_config": self.head_config}
