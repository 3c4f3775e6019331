"""A text classifier with prompts, and a head per task."""

from __future__ import annotations

from typing import Any, Self

import keras

from keras_mpt.adapters.head_names import PREFIX, text_head
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.fitting.alone import alone
from keras_mpt.fitting.targets import mask_of
from keras_mpt.heads.labels import RowLabels
from keras_mpt.heads.linear_head import linear_head
from keras_mpt.heads.num_classes import checked_num_classes
from keras_mpt.heads.pooling import POOLS
from keras_mpt.hugging_face.sentence_pooling import warn_of_pooling
from keras_mpt.models.answers import predicted_labels
from keras_mpt.models.arguments import hub_model
from keras_mpt.models.classifier import Classifier
from keras_mpt.splicing.cut import building_on, cut_features
from keras_mpt.splicing.positions import task_class
from keras_mpt.types import Backbone, Config, Data, NumClasses, Task, TaskIds, Tensor, Tensors


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedTextClassifier(Classifier):
    """A frozen backbone with prompts, pooled, under one head per task or one for all.

    It is compiled as it is made (sparse cross-entropy on logits, accuracy, Adam), so that `fit`
    works at once; `compile` changes that as usual. Logs hold each task's loss and metrics under its
    name.

    Args:
        backbone: a `keras_hub.models.Backbone`. It is set to `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        num_classes: list of T ints, or dict of task name to int: each task's number of classes, for
            a head per task. Or int, one head that all tasks share.
        pooling: `"base"`: as keras-hub's text classifier for this backbone pools (start token,
            pooler, extra layers); `"mean"`: over the user's tokens, prompts and padding left out;
            `"last"`: the last user token, as transformers' decoders classify, under a head without
            bias. `None` is `"base"` where keras-hub has such a classifier, else `"mean"`. A
            checkpoint of sentence embeddings wants its own, mostly `"mean"`: one that
            `backbone_from_pretrained` read warns where `None` is not that. Defaults to `None`.
        head_config: dict. Arguments for keras-hub's classifier under `"base"`, such as `dropout`.
            Defaults to `None`.
        **kwargs: `preprocessor` (keras-hub's; the model then takes text), `tokenizer`,
            `initialize`, `name`, `dtype`: see `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids`, (B,) or scalar
            integer, or task names. `fit`, `evaluate` and `predict` also take
            `{"text": [...], "task_ids": [...]}` where the model has a preprocessor; sentence pairs
            are `{"text": (first, second), …}`, two columns, or rows `{"text": [(a, b), c], …}`, of
            which each may be a pair or one text. A pair whose second text is `None` or empty is one
            text.
        training: bool. Defaults to `None`.

    Returns:
        Logits, float32 (B, num_classes); with a head per task (B, max(num_classes)), where classes
        that a row's task does not have are −1e9.

    Raises:
        ValueError: a `num_classes` that does not fit the config, or wrong inputs.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["tone", "topic"]
        )
        model = keras_mpt.models.PromptTunedTextClassifier(backbone, config, num_classes=[2, 3])
        ids = np.array([[2, 5, 6, 3], [2, 7, 8, 3]])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": ["tone", "topic"]}
        history = model.fit(x, np.array([1, 2]), verbose=0)
        assert "topic_accuracy" in history.history
        assert model.predict(x, verbose=0).shape == (2, 3)
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3; PEFT
    `PeftModelForSequenceClassification`.
    """

    task_type = TaskType.SEQ_CLS

    def __init__(
        self,
        backbone: Backbone,
        config: PromptTuningConfig,
        num_classes: NumClasses,
        pooling: str | None = None,
        head_config: Config | None = None,
        **kwargs: Any,
    ) -> None:
        classifier = task_class("TextClassifier", backbone)
        # An adapter has its own, and nothing to start.
        is_given = pooling is not None or not kwargs.get("initialize", True)
        pooling = _checked_pooling(pooling, classifier, backbone)
        # transformers' decoders classify their last token without a bias.
        has_bias = pooling != "last"
        head = linear_head(checked_num_classes(num_classes, config), PREFIX, has_bias)
        super().__init__(backbone, config, head=head, targets=RowLabels(head), **kwargs)
        self.pooling = pooling
        if not is_given:
            warn_of_pooling(
                backbone, pooling, (config.base_model_name_or_path, config.tokenizer_name_or_path)
            )
        below: list[keras.layers.Layer] = []
        if classifier is not None and pooling == "base":
            ours = {"backbone": backbone, "num_classes": 2, "preprocessor": None, "compile": False}
            with building_on(backbone):
                task = hub_model(classifier, head_config, **ours)
                self.features = cut_features(task)
            below = [layer for layer in self.features.layers if layer.weights]
            width = self.features.output.shape[-1]
        else:
            width = self.splice.follows_first_input(backbone.output).shape[-1]
        self.head_config = dict(head_config or {})
        head.build(width, text_head(backbone, len(below) + 1, pooling), below)
        self.finish()

    @classmethod
    def from_classifier(
        cls,
        classifier: Task,
        config: PromptTuningConfig,
        num_classes: NumClasses | None = None,
        **kwargs: Any,
    ) -> Self:
        """A prompt-tuned model on a keras-hub text classifier, starting from its head.

        Args:
            classifier: a `keras_hub.models.TextClassifier`. Its `activation` is left out: the model
                gives logits.
            config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
            num_classes: as in the constructor; `None` keeps the classifier's own last layer, shared
                by all tasks. Defaults to `None`.
            **kwargs: those of the constructor.

        Returns:
            A `PromptTunedTextClassifier`.

        Example:
            ```python
            backbone = keras_hub.models.BertBackbone(
                vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            classifier = keras_hub.models.BertTextClassifier(backbone, num_classes=2)
            config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=3)
            model = keras_mpt.models.PromptTunedTextClassifier.from_classifier(classifier, config)
            ```
        """
        given = classifier.get_config()
        not_head = ("backbone", "preprocessor", "name", "num_classes", "activation", "trainable")
        head_config = {k: v for k, v in given.items() if k not in not_head}
        for name, value in (
            ("preprocessor", classifier.preprocessor),
            ("pooling", "base"),
            ("head_config", head_config),
        ):
            kwargs.setdefault(name, value)
        keep_logits = num_classes is None
        model = cls(
            classifier.backbone,
            config,
            classifier.num_classes if num_classes is None else num_classes,
            **kwargs,
        )
        if model.pooling != "base":  # The classifier's head is for its own pooling.
            return model
        model.features.set_weights(cut_features(classifier).get_weights())
        if keep_logits:
            last = classifier.weights[-2:]
            for mine, theirs in zip(model.logits.weights, last, strict=True):
                mine.assign(theirs)
        return model

    @alone
    def predict_labels(
        self,
        x: Data,
        *,
        task_ids: TaskIds | None = None,
        batch_size: int | None = None,
        return_probabilities: bool = False,
    ) -> Any:
        """Each row's likeliest class among those of its own task, by its name.

        Args:
            x: as in `predict`, in memory; text may also be one string, or a list of them with
                `task_ids` beside it.
            task_ids: integer, task name, or a list of them with one per row, (B,), where `x` has
                none. Defaults to `None`.
            batch_size: int. Rows of a batch. Defaults to `None`: Keras's 32.
            return_probabilities: bool. Whether to give probabilities too. Defaults to `False`.

        Returns:
            A list of B strings of the config's `label_names`; for rows of tasks without names the
            integer class, and without any names an integer NumPy array (B,). With
            `return_probabilities` a tuple of these and of the softmax over the row's own classes,
            float32 (B, C), 0 for a class that its task has not.

        Raises:
            ValueError: wrong inputs, rows of a task of one class, which is a score, or compiled for
                outputs by themselves, a stream, or logits that are NaN or infinite.

        Example:
            ```python
            backbone = keras_hub.models.BertBackbone(
                vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            config = keras_mpt.MultitaskPromptTuningConfig(
                num_virtual_tokens=4,
                num_tasks=2,
                task_names=["tone", "topic"],
                label_names={"tone": ["bad", "good"], "topic": ["sport", "law", "art"]},
            )
            model = keras_mpt.models.PromptTunedTextClassifier(backbone, config, num_classes=[2, 3])
            ids = np.array([[2, 5, 6, 3], [2, 7, 8, 3]])
            x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
            labels = model.predict_labels(x, task_ids=["tone", "topic"])
            assert labels[0] in ["bad", "good"] and labels[1] in ["sport", "law", "art"]
            ```
        """
        return predicted_labels(self, x, task_ids, batch_size, return_probabilities)

    def compute_output_spec(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> keras.KerasTensor:
        """The logits' shape and dtype."""
        rows = inputs[self.splice.token_inputs[0].name].shape[0]
        return keras.KerasTensor((rows, self.head.max_classes), "float32")

    def after_backbone(
        self, outputs: Tensors, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensor:
        """Logits."""
        if self.pooling == "base":
            pooled = self.features(keras.tree.flatten(outputs), training=training)
        else:
            mask = mask_of(self.model_inputs, inputs, 0)
            pooled = POOLS[self.pooling](self.user_features(outputs), mask)
        return self.head(pooled, inputs.get("task_ids"))

    def own_arguments(self) -> Config:
        """The classes, and how features are pooled."""
        return {
            "num_classes": self.num_classes,
            "pooling": self.pooling,
            "head_config": self.head_config,
        }


def _checked_pooling(pooling: str | None, classifier: type[Task] | None, backbone: Backbone) -> str:
    if pooling not in (None, "base", "mean", "last"):
        raise ValueError(
            f"`pooling` should be 'base', 'mean', 'last' or None. Received: pooling={pooling!r}"
        )
    if pooling == "base" and classifier is None:
        raise ValueError(
            "`pooling` should be 'mean' or 'last' for a backbone that keras-hub has no text "
            "classifier for. "
            f"Received: pooling='base' with a {type(backbone).__name__}"
        )
    return pooling or ("mean" if classifier is None else "base")
