"""What prompt-tuned models with a trained head share."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt.config import PromptTuningConfig
from keras_mpt.fitting.compile_defaults import default_optimizer
from keras_mpt.fitting.targets import Targets
from keras_mpt.heads.linear_head import LinearHead
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.types import Backbone, Tensor


class Classifier(PromptTunedModel):
    """A frozen backbone with prompts under a linear head: one per task, or one for all.

    It is compiled as it is made (sparse cross-entropy on logits, accuracy, Adam), so that `fit`
    works at once; `compile` changes that as usual. Logs hold each task's loss and metrics under its
    name.

    Args:
        backbone: a `keras_hub.models.Backbone`. It is set to `trainable=False`.
        config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
        head: a linear head, not built yet.
        targets: the kind of targets.
        **kwargs: see `keras_mpt.models.PromptTunedModel`.
    """

    head: LinearHead

    def __init__(
        self,
        backbone: Backbone,
        config: PromptTuningConfig,
        *,
        head: LinearHead,
        targets: Targets,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, config, head=head, targets=targets, **kwargs)

    def finish(self) -> None:
        """Takes the built head's layer in, and compiles the model."""
        # In Keras's sight: the head is no layer, but holds one.
        self.logits: keras.layers.Layer = self.head.layer
        super().finish()
        self.compile()

    @property
    def num_classes(self) -> int | list[int]:
        """Each task's number of classes, or the one that all share."""
        found = self.head.num_classes
        assert found is not None
        return found

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        metrics: Any = "auto",
        **kwargs: Any,
    ) -> None:
        """`keras.Model.compile`, with defaults that train.

        Args:
            optimizer: optimizer. Defaults to `"auto"`: Adam at 0.005, as soft prompts want larger
                steps than weights.
            loss: loss of logits, which names mean too, or a dict of task name to loss. Defaults to
                `"auto"`: sparse cross-entropy on logits, the mean over the labels that count; of
                one class, which is a score, the squared error.
            metrics: list of metrics, or a dict of task name to list. Defaults to `"auto"`: accuracy
                over the labels that count, the mean absolute error of a score.
            **kwargs: the other arguments of `keras.Model.compile`; `loss_weights` and
                `weighted_metrics` may be dicts by task too.
        """
        super().compile(default_optimizer(optimizer), loss, metrics=metrics, **kwargs)

    def user_features(self, outputs: Any) -> Tensor:
        """The features (B, S, d) of the user's tokens."""
        return self.splice.follows_first_input(self.splice.user_positions(outputs))
