"""What prompt-tuned language models share."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import keras
import numpy as np

from keras_mpt.config import PromptTuningConfig
from keras_mpt.decoding.generate import sampler_of
from keras_mpt.decoding.score import Scoring
from keras_mpt.fitting.fitting import takes_labels
from keras_mpt.fitting.frozen import freeze
from keras_mpt.prompts.task_ids import concrete
from keras_mpt.splicing.cut import cut_head
from keras_mpt.splicing.positions import task_class


class PromptTunedLanguageModel(Scoring):
    """A frozen keras-hub language model with prompts: logits of the user's positions alone.

    Args:
        backbone: a `keras_hub.models.Backbone` that keras-hub has such a task for.
        config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
        head_config: dict. Further arguments of keras-hub's task, such as Gemma 4's
            `final_logit_cap`; `prompt_tune` takes them from the task that it is given. Defaults to
            `None`.
        **kwargs: see `keras_mpt.models.PromptTunedModel`.
    """

    task_name: ClassVar[str]
    has_targets_per_token = True

    def __init__(
        self,
        backbone: Any,
        config: PromptTuningConfig,
        head_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        found = task_class(self.task_name, backbone)
        if found is None:
            raise ValueError(
                f"`backbone` should be one that keras-hub has a {self.task_name} for. Received: "
                f"a {type(backbone).__name__}"
            )
        super().__init__(backbone, config, **kwargs)
        self.head_config = dict(head_config or {})
        task = found(backbone=backbone, preprocessor=None, compile=False, **self.head_config)
        # Its variables are the backbone's (the output embedding). As a plain function it is kept
        # out of Keras's sight, which would list those variables twice.
        head = cut_head(task)
        self.to_logits, self.logits_spec = head.__call__, head.compute_output_spec
        self.logits_dtype = head.outputs[0].dtype
        self.logits_size = int(head.outputs[0].shape[-1])
        # Unless it has weights of its own, as EdRec's has: these are frozen, and saved.
        if any(all(v is not known for known in backbone.variables) for v in head.variables):
            freeze(head)
            self.head = head
        self.find_caches(task)
        self.built = True
        self.compile()

    @property
    def always_frozen(self) -> list[Any]:
        """The backbone, and a head with weights of its own."""
        return [self.backbone, *([self.head] if hasattr(self, "head") else [])]

    def find_caches(self, task: Any) -> None:
        """Keeps what `generate` needs of keras-hub's task, where that has the caches for it."""

    @classmethod
    def from_task(cls, task: Any, config: PromptTuningConfig, **kwargs: Any) -> Self:
        """A prompt-tuned model on a keras-hub language model, with that model's head.

        Args:
            task: a `keras_hub.models.CausalLM` or `Seq2SeqLM`.
            config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
            **kwargs: those of the constructor.

        Returns:
            A model of this class.
        """
        shared = ("backbone", "preprocessor", "name", "trainable", "dtype")
        head_config = {k: v for k, v in task.get_config().items() if k not in shared}
        for name, value in (("preprocessor", task.preprocessor), ("head_config", head_config)):
            kwargs.setdefault(name, value)
        model = cls(task.backbone, config, **kwargs)
        if hasattr(model, "head"):
            model.head.set_weights(cut_head(task).get_weights())
        return model

    def folded_arguments(self, task: int) -> dict[str, Any]:
        """The head of a folded model is this one's."""
        return {"head_config": self.head_config}

    def copy_head(self, folded: Any, task: int) -> None:
        """Gives a folded model the head's own weights, where it has some."""
        if hasattr(self, "head"):
            folded.head.set_weights(self.head.get_weights())
        folded.set_sampler(self.sampler)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "head_config": self.head_config}

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        weighted_metrics: Any = "auto",
        sampler: Any = "top_k",
        **kwargs: Any,
    ) -> None:
        """`keras.Model.compile`, with defaults that train.

        Args:
            optimizer: optimizer. Defaults to `"auto"`: Adam at 0.005.
            loss: loss. Defaults to `"auto"`: sparse cross-entropy on logits.
            weighted_metrics: list of metrics. Defaults to `"auto"`: accuracy.
            sampler: a `keras_hub.samplers.Sampler` or its name, for `generate`. Defaults to
                `"top_k"`.
            **kwargs: the other arguments of `keras.Model.compile`.
        """
        sampler = sampler_of(sampler)
        if optimizer == "auto":
            optimizer = keras.optimizers.Adam(0.005)
        if loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if weighted_metrics == "auto":
            weighted_metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        super().compile(optimizer=optimizer, loss=loss, weighted_metrics=weighted_metrics, **kwargs)
        self.set_sampler(sampler)

    def check_targets(self, x: Any, y: Any) -> None:
        """Refuses labels that are no tokens: backends differ in what they make of these."""
        labels = concrete(y)
        if labels is None or not takes_labels(self.loss):
            return
        ignored, size = getattr(self.loss, "ignore_class", None), self.logits_size
        wrong = labels[((labels < 0) | (labels >= size)) & (labels != ignored)]
        if wrong.size:
            raise ValueError(
                f"`y` should hold token ids in [0, {size}), also where they do not count: those "
                "have a `sample_weight` of 0, or are the loss's `ignore_class`. Received: y with "
                f"{np.unique(wrong)[:8].tolist()}"
            )

    def get_compile_config(self) -> Any:
        """What `compile` was given, the sampler included."""
        config = super().get_compile_config()
        if config:
            config["sampler"] = keras.saving.serialize_keras_object(self.sampler)
        return config

    def compute_output_spec(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """The logits' shape and dtype."""
        return self.logits_spec(keras.tree.flatten(self.backbone_spec(inputs)))

    def after_backbone(
        self, outputs: Any, inputs: dict[str, Any], training: bool | None = None
    ) -> Any:
        """Logits (B, S, V)."""
        outputs = self.splice.user_positions(outputs)
        return self.to_logits(keras.tree.flatten(outputs), training=training)
