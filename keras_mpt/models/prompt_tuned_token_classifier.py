"""A class per token, with prompts, and a head per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.adapters.head_names import token_head
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.models.classifier import PromptTunedClassifier
from keras_mpt.splicing.positions import task_class

# The label of a token that does not count, as in transformers and PyTorch.
IGNORED = -100


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedTokenClassifier(PromptTunedClassifier):
    """A frozen backbone with prompts that gives each user token a class: names, parts of speech.

    It is compiled as it is made (sparse cross-entropy on logits, accuracy, Adam). Tokens that are
    padding or have the label −100 count in neither; a batch's loss is the mean over those that
    count.

    Args:
        backbone: a `keras_hub.models.Backbone`. It is set to `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        num_classes: list of T ints, each task's number of classes, for a head per task; or int, one
            head that all tasks share.
        **kwargs: `tokenizer`, `initialize`, `name`, `dtype`: see
            `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids`, (B,) or scalar
            integer, or task names.
        training: bool. Defaults to `None`.

    Returns:
        Logits, float32 (B, S, num_classes); with a head per task (B, S, max(num_classes)), where
        classes that a row's task does not have are −1e9.

    Raises:
        ValueError: a `num_classes` that does not fit the config, or wrong inputs.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="TOKEN_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["ner", "pos"]
        )
        model = keras_mpt.models.PromptTunedTokenClassifier(backbone, config, num_classes=[3, 5])
        ids = np.array([[2, 5, 6, 3], [2, 7, 8, 3]])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": ["ner", "pos"]}
        labels = np.array([[-100, 2, 0, -100], [-100, 4, 1, -100]])
        model.fit(x, labels, verbose=0)
        assert model.predict(x, verbose=0).shape == (2, 4, 5)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; PEFT `PeftModelForTokenClassification`.
    """

    task_type = TaskType.TOKEN_CLS
    has_targets_per_token = True

    def __init__(
        self,
        backbone: Any,
        config: PromptTuningConfig,
        num_classes: int | Sequence[int],
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, config, num_classes, **kwargs)
        self.build_head(self.splice.follows_first_input(backbone.output).shape[-1])

    def compile(
        self, optimizer: Any = "auto", loss: Any = "auto", metrics: Any = "auto", **kwargs: Any
    ) -> None:
        """`keras.Model.compile`, with defaults that train.

        Args:
            optimizer: optimizer. Defaults to `"auto"`: Adam at 0.005.
            loss: loss. Defaults to `"auto"`: sparse cross-entropy on logits, the mean over the
                tokens that count.
            metrics: list of metrics. Defaults to `"auto"`: accuracy over the tokens that count.
            **kwargs: the other arguments of `keras.Model.compile`.
        """
        if loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, ignore_class=IGNORED, reduction="mean_with_sample_weight"
            )
        if metrics == "auto":
            accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
            metrics, kwargs = None, {"weighted_metrics": [accuracy], **kwargs}
        super().compile(optimizer, loss, metrics, **kwargs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **kw: Any
    ) -> Any:
        """The loss over the tokens that count."""
        y, sample_weight = self._counted(x, y, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, **kw)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The metrics over the tokens that count."""
        y, sample_weight = self._counted(x, y, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def compute_output_spec(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """The logits' shape and dtype."""
        shape = inputs[self.splice.token_inputs[0].name].shape
        return keras.KerasTensor((*shape, self.max_classes), "float32")

    def after_backbone(
        self, outputs: Any, inputs: dict[str, Any], training: bool | None = None
    ) -> Any:
        """Logits."""
        tokens = self.splice.follows_first_input(self.splice.user_positions(outputs))
        return self.classify(tokens, inputs.get("task_ids"))

    def head_layers(self) -> list[tuple[str, Any]]:
        """The trained layer behind the backbone, by the name of its module in an adapter."""
        is_decoder = task_class("CausalLM", self.backbone) is not None
        return list(zip(token_head(self.backbone, is_decoder), [self.logits], strict=True))

    def labels_that_count(self, x: dict[str, Any], labels: np.ndarray) -> tuple[Any, Any]:
        """Labels (B, S), after a check of their shape, and which of them the loss counts."""
        shape = tuple(x[self.splice.token_inputs[0].name].shape)
        if labels.shape != shape:
            raise ValueError(
                f"`y` should have one label per token: shape {shape}. Received: y of shape "
                f"{labels.shape}"
            )
        mask_name = self.splice.token_inputs[0].mask_name
        counted = labels != IGNORED
        if mask_name is not None:
            counted &= ops.convert_to_numpy(x[mask_name]) != 0
        return labels, counted

    def _counted(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any]:
        """Labels without those that do not count, and a weight per token that says so."""
        if y is None or len(y.shape) != 2:
            return y, sample_weight
        counts = ops.not_equal(y, ops.cast(IGNORED, y.dtype))
        mask_name = self.splice.token_inputs[0].mask_name
        if mask_name is not None:
            counts = ops.logical_and(counts, ops.cast(x[mask_name], "bool"))
        weight = ops.cast(counts, "float32")
        given = self._weight_per_target(y, sample_weight)
        weight = weight if given is None else weight * given
        return ops.where(counts, y, ops.zeros_like(y)), weight
