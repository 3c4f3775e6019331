"""A text classifier with prompts, and a head per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.models.task_heads import TaskHeads
from keras_mpt.splicing.cut import cut_features
from keras_mpt.splicing.positions import task_class

# Where PEFT keeps a BERT classifier's head: `modules_to_save=["classifier"]`.
HEAD = "base_model.classifier"


@keras.saving.register_keras_serializable(package="keras_mpt")
class PromptTunedTextClassifier(PromptTunedModel):
    """A frozen backbone with prompts, pooled, under one head per task or one for all.

    It is compiled as it is made (sparse cross-entropy on logits, accuracy, Adam), so that `fit`
    works at once; `compile` changes that as usual. Logs hold each task's loss and metrics under its
    name.

    Args:
        backbone: a `keras_hub.models.Backbone`. It is set to `trainable=False`.
        config: a `PromptTuningConfig` (no `task_ids` then) or `MultitaskPromptTuningConfig`.
        num_classes: list of T ints, each task's number of classes, for a head per task; or int, one
            head that all tasks share.
        pooling: `"base"`: as keras-hub's text classifier for this backbone pools (start token,
            pooler, extra layers); `"mean"`: over the user's tokens, prompts and padding left out.
            `None` is `"base"` where keras-hub has such a classifier, else `"mean"`. Defaults to
            `None`.
        head_config: dict. Arguments for keras-hub's classifier under `"base"`, such as `dropout`.
            Defaults to `None`.
        **kwargs: `preprocessor` (keras-hub's; the model then takes text), `tokenizer`,
            `initialize`, `name`, `dtype`: see `keras_mpt.models.PromptTunedModel`.

    Call arguments:
        inputs: dict of the backbone's inputs, each (B, S) integer, and `task_ids`, (B,) or scalar
            integer, or task names. `fit`, `evaluate` and `predict` also take
            `{"text": [...], "task_ids": [...]}` where the model has a preprocessor; sentence pairs
            are `{"text": (first, second), …}`.
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
        backbone: Any,
        config: PromptTuningConfig,
        num_classes: int | Sequence[int],
        pooling: str | None = None,
        head_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        num_classes = _checked_num_classes(num_classes, config)
        classifier = task_class("TextClassifier", backbone)
        pooling = _checked_pooling(pooling, classifier, backbone)
        super().__init__(backbone, config, **kwargs)
        self.num_classes = num_classes
        self.pooling = pooling
        self.head_config = dict(head_config or {})
        if pooling == "base":
            task = classifier(
                backbone=backbone,
                num_classes=2,
                preprocessor=None,
                compile=False,
                **self.head_config,
            )
            self.features = cut_features(task)
            width = self.features.output.shape[-1]
        else:
            width = self.splice.follows_first_input(backbone.output).shape[-1]
        # Logits are float32 whatever the backbone computes in, for a stable softmax.
        if isinstance(num_classes, int):
            self.logits = keras.layers.Dense(num_classes, name="logits", dtype="float32")
            self.logits.build((None, width))
        else:
            self.logits = TaskHeads(num_classes, name="logits", dtype="float32")
            self.logits.build((None, width), (None,))
        self.built = True
        self.compile()

    @classmethod
    def from_classifier(
        cls,
        classifier: Any,
        config: PromptTuningConfig,
        num_classes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> Self:
        """A prompt-tuned model on a keras-hub text classifier, starting from its head.

        Args:
            classifier: a `keras_hub.models.TextClassifier`.
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
        if model.pooling == "mean":  # The classifier's head is not for means.
            return model
        model.features.set_weights(cut_features(classifier).get_weights())
        if keep_logits:
            last = classifier.weights[-2:]
            for mine, theirs in zip(model.logits.weights, last, strict=True):
                mine.assign(theirs)
        return model

    def compile(
        self, optimizer: Any = "auto", loss: Any = "auto", metrics: Any = "auto", **kwargs: Any
    ) -> None:
        """`keras.Model.compile`, with defaults that train.

        Args:
            optimizer: optimizer. Defaults to `"auto"`: Adam at 0.005, as soft prompts want larger
                steps than weights.
            loss: loss. Defaults to `"auto"`: sparse cross-entropy on logits.
            metrics: list of metrics. Defaults to `"auto"`: accuracy.
            **kwargs: the other arguments of `keras.Model.compile`.
        """
        if optimizer == "auto":
            optimizer = keras.optimizers.Adam(0.005)
        if loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if metrics == "auto":
            metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def compute_output_spec(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """The logits' shape and dtype."""
        token_ids = inputs[self.splice.token_inputs[0].name]
        width = self.num_classes if isinstance(self.num_classes, int) else max(self.num_classes)
        return keras.KerasTensor((token_ids.shape[0], width), "float32")

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Logits."""
        outputs = self.run_backbone(inputs, training)
        if self.pooling == "base":
            pooled = self.features(keras.tree.flatten(outputs), training=training)
        else:
            token_input = self.splice.token_inputs[0]
            tokens = self.splice.follows_first_input(self.splice.user_positions(outputs))
            mask = None if token_input.mask_name is None else inputs[token_input.mask_name]
            pooled = mean_over_tokens(tokens, mask)
        if isinstance(self.num_classes, int):
            return self.logits(pooled)
        batch_size = ops.shape(pooled)[0]
        return self.logits(pooled, ops.broadcast_to(inputs["task_ids"], (batch_size,)))

    def check_targets(self, x: Any, y: Any) -> None:
        """Refuses labels that a row's task does not have."""
        labels = np.asarray(ops.convert_to_numpy(y) if ops.is_tensor(y) else y)
        if labels.dtype.kind not in "iuf" or not _takes_labels(self.loss):
            return
        rows = len(x[self.splice.token_inputs[0].name])
        if labels.shape not in ((rows,), (rows, 1)):
            raise ValueError(
                f"`y` should have one label per row: {rows} of them. Received: y of shape "
                f"{labels.shape}"
            )
        labels, task_ids = labels.reshape(-1), x.get("task_ids")
        if isinstance(self.num_classes, int):
            limits = np.full(rows, self.num_classes)
        else:
            limits = np.array(self.num_classes)[task_ids]
        is_wrong = (labels < 0) | (labels >= limits) | (labels != np.floor(labels))
        wrong = np.flatnonzero(is_wrong & (labels != getattr(self.loss, "ignore_class", None)))
        if wrong.size:
            row = int(wrong[0])
            task = "" if task_ids is None else f" of task {self.config.names[int(task_ids[row])]!r}"  # type: ignore[attr-defined]
            raise ValueError(
                f"`y` should hold labels in [0, {limits[row]}), the classes{task}. Received: label "
                f"{labels[row]} in row {row}, and {wrong.size} wrong labels in all"
            )

    def head_weights(self) -> dict[str, Any]:
        """The head's variables by the name that they have in an adapter."""
        weights = {f"{HEAD}.{_torch_name(v)}": v for v in self.logits.weights}
        for layer in self.features.layers if self.pooling == "base" else []:
            weights |= {f"{HEAD}.{layer.name}.{_torch_name(v)}": v for v in layer.weights}
        return weights

    def adapter_extras(self) -> dict[str, Any]:
        """What `load_adapter` needs to rebuild the head."""
        return {
            "num_classes": self.num_classes,
            "pooling": self.pooling,
            "head_config": self.head_config,
        }

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), **self.adapter_extras()}


def mean_over_tokens(tokens: Any, mask: Any = None) -> Any:
    """The mean of each row's tokens, padding left out.

    Args:
        tokens: float tensor (B, S, d).
        mask: integer or bool tensor (B, S), or `None` where all tokens count. Defaults to `None`.

    Returns:
        A float tensor (B, d).
    """
    if mask is None:
        return ops.mean(tokens, axis=1)
    weights = ops.cast(mask, tokens.dtype)[:, :, None]
    return ops.sum(tokens * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)


def _takes_labels(loss: Any) -> bool:
    """Whether targets are class labels under this loss, rather than numbers."""
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        return True
    return "sparse" in (loss if isinstance(loss, str) else getattr(loss, "__name__", ""))


def _torch_name(variable: Any) -> str:
    return "weight" if variable.name == "kernel" else str(variable.name)


def _checked_num_classes(num_classes: Any, config: PromptTuningConfig) -> int | list[int]:
    counts = num_classes if isinstance(num_classes, (list, tuple)) else [num_classes]
    if not counts or not all(
        isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in counts
    ):
        raise ValueError(
            "`num_classes` should be a positive integer, or a list with one per task. Received: "
            f"num_classes={num_classes!r}"
        )
    if not isinstance(num_classes, (list, tuple)):
        return int(num_classes)
    num_tasks = config.num_tasks if isinstance(config, MultitaskPromptTuningConfig) else None
    if num_tasks != len(counts):
        raise ValueError(
            "`num_classes` should have one entry per task of a MultitaskPromptTuningConfig "
            f"(num_tasks={num_tasks}), or be one integer. Received: num_classes={num_classes!r}"
        )
    return [int(n) for n in counts]


def _checked_pooling(pooling: str | None, classifier: Any, backbone: Any) -> str:
    if pooling not in (None, "base", "mean"):
        raise ValueError(
            f"`pooling` should be 'base', 'mean' or None. Received: pooling={pooling!r}"
        )
    if pooling == "base" and classifier is None:
        raise ValueError(
            "`pooling` should be 'mean' for a backbone that keras-hub has no text classifier for. "
            f"Received: pooling='base' with a {type(backbone).__name__}"
        )
    return pooling or ("mean" if classifier is None else "base")
