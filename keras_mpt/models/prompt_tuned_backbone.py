"""A backbone with prompts."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt.checks import check_flag
from keras_mpt.config import PromptTuningConfig
from keras_mpt.fitting.targets import AnyTargets
from keras_mpt.heads.head import NoHead
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.types import Backbone, Config, Tensor, Tensors


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedBackbone(PromptTunedModel):
    """A frozen backbone that takes its own inputs and `task_ids`, and gives its own outputs.

    Args:
        backbone: a `keras_hub.models.Backbone`. It is set to `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        return_prompt_positions: bool. Whether outputs keep the prompt's positions. Defaults to
            `False`.
        **kwargs: `preprocessor`, `tokenizer`, `initialize`, `name`, `dtype`: see
            `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids`, (B,) or scalar
            integer, or task names. Inputs with one entry per token other than the ids and the mask,
            such as `segment_ids`, default to zeros.
        training: bool. Defaults to `None`.

    Returns:
        The backbone's outputs: float tensors (B, S, d), or (B, L + S, d) with the prompt positions;
        pooled outputs (B, d).

    Raises:
        ValueError: inputs that are missing, unknown, of another shape, too long, or wrong task ids.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=3)
        model = keras_mpt.models.PromptTunedBackbone(backbone, config)
        ids = np.array([[2, 5, 6, 3]])
        outputs = model({"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": [1]})
        assert outputs["sequence_output"].shape == (1, 4, 8)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; PEFT `peft_model.py`.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: PromptTuningConfig,
        return_prompt_positions: bool = False,
        **kwargs: Any,
    ) -> None:
        keep = check_flag("return_prompt_positions", return_prompt_positions)
        super().__init__(
            backbone,
            config,
            head=NoHead(),
            targets=AnyTargets(),
            has_one_output=not keras.tree.is_nested(backbone.output),
            **kwargs,
        )
        self.return_prompt_positions = keep
        self.finish()

    def after_backbone(
        self, outputs: Tensors, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensors:
        """The backbone's outputs."""
        if self.return_prompt_positions:
            return outputs
        return self.splice.user_positions(outputs, inputs)

    def compute_output_spec(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensors:
        """The outputs' shapes and dtypes."""
        spec = self.splice.backbone_spec(inputs)
        if self.return_prompt_positions:
            spec = self.splice.with_prompt_positions(spec)
        return spec

    def own_arguments(self) -> Config:
        """Whether outputs keep the prompt's positions."""
        return {"return_prompt_positions": self.return_prompt_positions}
