"""A class per token, with prompts, and a head per task."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt.adapters.head_names import PREFIX, token_head
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.fitting.alone import alone
from keras_mpt.heads.labels import TokenLabels
from keras_mpt.heads.linear_head import linear_head
from keras_mpt.heads.num_classes import checked_num_classes
from keras_mpt.models.answers import predicted_labels
from keras_mpt.models.classifier import Classifier
from keras_mpt.splicing.positions import task_class
from keras_mpt.types import Backbone, Config, Data, NumClasses, TaskIds, Tensor, Tensors


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedTokenClassifier(Classifier):
    """A frozen backbone with prompts that gives each user token a class: names, parts of speech.

    It is compiled as it is made (sparse cross-entropy on logits, accuracy, Adam). Tokens that are
    padding or have the label −100 count in neither; a batch's loss is the mean over those that
    count.

    Args:
        backbone: a `keras_hub.models.Backbone`. It is set to `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        num_classes: list of T ints, or dict of task name to int: each task's number of classes, for
            a head per task. Or int, one head that all tasks share.
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

    def __init__(
        self,
        backbone: Backbone,
        config: PromptTuningConfig,
        num_classes: NumClasses,
        **kwargs: Any,
    ) -> None:
        head = linear_head(checked_num_classes(num_classes, config), PREFIX)
        super().__init__(backbone, config, head=head, targets=TokenLabels(head), **kwargs)
        width = self.splice.follows_first_input(backbone.output).shape[-1]
        is_decoder = task_class("CausalLM", backbone) is not None
        head.build(width, token_head(backbone, is_decoder))
        self.finish()

    @alone
    def predict_labels(
        self,
        x: Data,
        *,
        task_ids: TaskIds | None = None,
        batch_size: int | None = None,
        return_probabilities: bool = False,
    ) -> Any:
        """Each token's likeliest class among those of its row's own task, by its name.

        Args:
            x: as in `predict`, in memory.
            task_ids: integer, task name, or a list of them with one per row, (B,), where `x` has
                none. Defaults to `None`.
            batch_size: int. Rows of a batch. Defaults to `None`: Keras's 32.
            return_probabilities: bool. Whether to give probabilities too. Defaults to `False`.

        Returns:
            A list of B lists, each with an entry for every token of the row that is no padding,
            start and end tokens included: strings of the config's `label_names`, or the integer
            class where the row's task has none. With `return_probabilities` a tuple of these and of
            the softmax over the row's own classes, float32 (B, S, C), 0 for a class that its task
            has not, and at padding.

        Raises:
            ValueError: wrong inputs, a task of one class, which is a score, or compiled for outputs
                by themselves, a stream, or logits that are NaN or infinite.
        """
        return predicted_labels(self, x, task_ids, batch_size, return_probabilities)

    def compute_output_spec(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> keras.KerasTensor:
        """The logits' shape and dtype."""
        shape = inputs[self.splice.token_inputs[0].name].shape
        return keras.KerasTensor((*shape, self.head.max_classes), "float32")

    def after_backbone(
        self, outputs: Tensors, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensor:
        """Logits."""
        return self.head(self.user_features(outputs), inputs.get("task_ids"))

    def own_arguments(self) -> Config:
        """The classes."""
        return {"num_classes": self.num_classes}
