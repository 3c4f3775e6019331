"""Answers as spans of the text, with prompts."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.adapters.head_names import ANSWERS, PREFIX
from keras_mpt.arrays import to_numpy
from keras_mpt.checks import is_integer
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.fitting.targets import Spans, mask_of
from keras_mpt.heads.linear_head import SharedHead
from keras_mpt.heads.task_heads import NO_CLASS
from keras_mpt.models.classifier import Classifier
from keras_mpt.types import Backbone, Config, Tensor, Tensors


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedQuestionAnswerer(Classifier):
    """A frozen backbone with prompts that finds where an answer starts and ends in its input.

    One head of two outputs is shared by all tasks. Positions are the user's: 0 is the first token,
    wherever the prompt stands. It is compiled as it is made; the loss is the mean of the starts'
    and the ends' cross-entropy, as in transformers.

    Args:
        backbone: a `keras_hub.models.Backbone`. It is set to `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        **kwargs: `preprocessor`, `tokenizer`, `initialize`, `name`, `dtype`: see
            `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids`, (B,) or scalar
            integer, or task names. Targets are (B, 2) integer: the first and the last token.
        training: bool. Defaults to `None`.

    Returns:
        Logits, float32 (B, 2, S): of the start, and of the end; −1e9 at padding.

    Raises:
        ValueError: wrong inputs.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="QUESTION_ANS", num_virtual_tokens=4, num_tasks=2
        )
        model = keras_mpt.models.PromptTunedQuestionAnswerer(backbone, config)
        ids = np.array([[2, 5, 6, 3], [2, 7, 8, 3]])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": [0, 1]}
        model.fit(x, np.array([[1, 2], [1, 1]]), verbose=0)
        spans = keras_mpt.models.best_spans(model.predict(x, verbose=0))
        assert spans.shape == (2, 2)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; PEFT `PeftModelForQuestionAnswering`,
    which cannot take `task_ids`.
    """

    task_type = TaskType.QUESTION_ANS

    def __init__(self, backbone: Backbone, config: PromptTuningConfig, **kwargs: Any) -> None:
        if "num_classes" in kwargs:
            raise ValueError(
                "`num_classes` should be left out: a span has a start and an end. Received: "
                f"num_classes={kwargs['num_classes']!r}"
            )
        head = SharedHead(2, use_bias=True, prefix=PREFIX, user_chosen=False)
        super().__init__(backbone, config, head=head, targets=Spans(), **kwargs)
        head.build(self.splice.follows_first_input(backbone.output).shape[-1], [ANSWERS])
        self.finish()

    def compute_output_spec(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> keras.KerasTensor:
        """The logits' shape and dtype."""
        rows, length = inputs[self.splice.token_inputs[0].name].shape
        return keras.KerasTensor((rows, 2, length), "float32")

    def after_backbone(
        self, outputs: Tensors, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensor:
        """Logits."""
        logits = ops.transpose(self.head(self.user_features(outputs), None), (0, 2, 1))
        mask = mask_of(self.model_inputs, inputs, 0)
        if mask is None:
            return logits
        is_token = ops.cast(mask, "bool")[:, None]
        return ops.where(is_token, logits, ops.cast(NO_CLASS, logits.dtype))

    def own_arguments(self) -> Config:
        """None: the head has one form."""
        return {}


def best_spans(logits: Tensor, max_length: int = 30) -> np.ndarray:
    """The likeliest answers: start and end with the greatest sum of logits, in order.

    Args:
        logits: float array (B, 2, S), as the model predicts them.
        max_length: int. The most tokens that an answer has. Defaults to `30`.

    Returns:
        An int array (B, 2): each answer's first and last token.

    Raises:
        ValueError: logits of another shape or that are not finite, or a `max_length` under 1.

    Example:
        ```python
        logits = np.array([[[0.0, 3.0, 0.0], [4.0, 0.0, 1.0]]])
        assert keras_mpt.models.best_spans(logits).tolist() == [[0, 0]]
        assert keras_mpt.models.best_spans(logits * [[1], [-1]]).tolist() == [[1, 1]]
        ```
    """
    logits = to_numpy(logits)
    if logits.ndim != 3 or logits.shape[1] != 2 or logits.shape[2] == 0:
        raise ValueError(
            f"`logits` should have shape (B, 2, S). Received: logits of shape {logits.shape}"
        )
    if not is_integer(max_length, least=1):
        raise ValueError(f"`max_length` should be at least 1. Received: max_length={max_length!r}")
    # −∞ may stand where there is no token, but not everywhere.
    is_right = ~(np.isnan(logits) | np.isposinf(logits)).any(axis=(1, 2))
    wrong = np.flatnonzero(~(is_right & np.isfinite(logits).any(axis=2).all(axis=1)))
    if wrong.size:
        raise ValueError(
            f"`logits` should be finite. Received: logits with NaN or infinity in {wrong.size} "
            f"rows, the first of them row {wrong[0]}"
        )
    length = logits.shape[2]
    scores = logits[:, 0, :, None] + logits[:, 1, None, :]
    span = np.arange(length)[None, :] - np.arange(length)[:, None]
    scores = np.where((span >= 0) & (span < max_length), scores, -np.inf)
    best = scores.reshape(len(scores), length * length).argmax(axis=1)
    return np.stack([best // length, best % length], axis=1)
