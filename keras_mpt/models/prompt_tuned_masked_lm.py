"""A masked language model with prompts."""

from __future__ import annotations

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_mpt.checks import check_flag
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.data.columns import as_columns
from keras_mpt.decoding.calibration import answers
from keras_mpt.decoding.candidates import Candidates
from keras_mpt.decoding.compiled import CompiledFunctions
from keras_mpt.decoding.mask_score import score_masks
from keras_mpt.decoding.scoring import Options
from keras_mpt.fitting.alone import alone
from keras_mpt.fitting.compile_defaults import default_optimizer
from keras_mpt.fitting.label_words import have_words
from keras_mpt.fitting.mask_positions import MASK_POSITIONS
from keras_mpt.fitting.masked_tokens import MaskedTokens
from keras_mpt.fitting.packing import check_packing
from keras_mpt.heads.head import FrozenHead
from keras_mpt.layer_settings import apply_settings, read_settings
from keras_mpt.models.hub_task import from_hub_task, hub_task
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.types import Backbone, Config, Data, Task, TaskIds, Tensor, Tensors


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
        truncation_side: `"left"` or `"right"`, where a text with a mask token is cut that is too
            long; the mask never is. `None`: it is an error. Defaults to `None`.
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

        Or (B,) integer labels, where tasks have `label_words` in the config and each text holds the
        mask token once, such as "… It was [MASK].": what is to stand there is the label's word,
        which must be one token. Accuracy is then over the words of the row's task.

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
        truncation_side: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_packing(truncation_side, False)
        task, graph = hub_task("MaskedLM", backbone, head_config)
        head = FrozenHead(graph, task.backbone)
        targets = MaskedTokens(int(graph.outputs[0].shape[-1]))
        super().__init__(backbone, config, head=head, targets=targets, **kwargs)
        self.model_inputs = self.model_inputs.with_masks(truncation_side)
        if self.preprocessor is not None:
            _ = self.model_inputs.label_words  # Whether they have one token each.
        self.head_config = dict(head_config or {})
        self.truncation_side = truncation_side
        self.frozen_head = head.frozen_layer()
        self.functions = CompiledFunctions(self)
        self.finish()
        self.compile()

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
                accuracy. In rows of one place whose token is one of their task's `label_words` it
                is that of choosing among these, as long as no other metric stands beside it.
            **kwargs: the other arguments of `keras.Model.compile`.
        """
        optimizer = default_optimizer(optimizer)
        super().compile(optimizer, loss, weighted_metrics=weighted_metrics, **kwargs)

    def forget_compiled(self) -> None:
        """Forgets the functions that were compiled for variables that are replaced."""
        super().forget_compiled()
        self.functions.forget()

    @alone
    def score(
        self,
        inputs: Any,
        candidates: Any = None,
        *,
        task_ids: TaskIds | None = None,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """How likely each candidate is in the place of each row's mask, under its own task.

        Row b's score of a candidate, which is one token c, is

            log p(c | the task's prompt, the row's tokens),

        the natural logarithm of the softmax over all tokens, taken in float32.

        Args:
            inputs: string or list of strings, or of pairs of them, that hold the mask token once,
                also as `{"text": …}`; or a dict of the backbone's inputs and `mask_positions`,
                (B, 1). A dict may hold `task_ids`.
            candidates: list of C strings (with a preprocessor) or C lists of one token id, for all
                rows; or a list of B such lists. `None`: each row's own task's `label_words`.
                Defaults to `None`.
            task_ids: integer, task name, or a list of them with one per row, (B,). Not given to a
                model without tasks. Defaults to `None`.
            batch_size: int. Rows that are read at once. Defaults to `None`: 32.

        Returns:
            A float32 NumPy array (B, C); one string is one row. Of label words, C is the most
            classes that a row's task has, and −∞ stands for those that another row's has not.

        Raises:
            ValueError: wrong inputs or task ids, a text that does not hold the mask token once or
                is too long, candidates of another form or of several tokens, a task without label
                words, or logits that are NaN or infinite.

        Example:
            ```python
            words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "was", "good", "bad"]
            tokenizer = keras_hub.models.BertTokenizer(vocabulary=words)
            preprocessor = keras_hub.models.BertMaskedLMPreprocessor(tokenizer, sequence_length=8)
            backbone = keras_hub.models.BertBackbone(
                vocabulary_size=9, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            base = keras_hub.models.BertMaskedLM(backbone, preprocessor)
            config = keras_mpt.MultitaskPromptTuningConfig(
                num_virtual_tokens=4,
                num_tasks=2,
                task_names=["tone", "time"],
                label_words={"tone": ["bad", "good"], "time": ["was", "it"]},
            )
            model = keras_mpt.prompt_tune(base, config)
            texts = ["it was [MASK]", "it [MASK] good"]
            model.fit({"text": texts, "task_ids": ["tone", "time"]}, np.array([1, 0]), verbose=0)
            assert model.score(texts, task_ids=["tone", "time"]).shape == (2, 2)
            assert model.predict_labels(texts[0], task_ids="tone")[0] in ["bad", "good"]
            ```

        Source: Schick and Schütze 2021 (arXiv 2001.07676), section 3: labels as words in a mask.
        """
        return self._scored(inputs, candidates, task_ids, Options(batch_size=batch_size))[0]

    @alone
    def predict_labels(
        self,
        inputs: Any,
        candidates: Any = None,
        *,
        task_ids: TaskIds | None = None,
        calibrate: Any = False,
        return_probabilities: bool = False,
        batch_size: int | None = None,
    ) -> Any:
        """The candidate with the highest `score` for each row; of equal ones, the first.

        Args:
            inputs: as in `score`.
            candidates: as in `score`. Defaults to `None`.
            task_ids: as in `score`. Defaults to `None`.
            calibrate: as in `keras_mpt.models.PromptTunedCausalLM.predict_labels`; each text holds
                the mask token once. `True` stands for the mask token alone, and after "N/A".
                Defaults to `False`.
            return_probabilities: bool. Whether to give probabilities too. Defaults to `False`.
            batch_size: as in `score`. Defaults to `None`.

        Returns:
            A list of B strings where candidates are strings; where they are token ids, an integer
            NumPy array (B,) of their indices. With `return_probabilities` a tuple of these and of
            the softmax of the row's scores, float32 (B, C), 0 for a class that its task has not.

        Raises:
            ValueError: as in `score`; or `calibrate` of another form, or without a preprocessor.

        Source: Zhao et al. 2021 (arXiv 2102.09690), for `calibrate`.
        """
        options = Options(batch_size=batch_size, calibrate=calibrate)
        with_p = check_flag("return_probabilities", return_probabilities)
        scores, given = self._scored(inputs, candidates, task_ids, options)
        return answers(given, scores, with_p)

    @alone
    def predict(
        self,
        x: Data,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Tensors:
        """`keras.Model.predict`; rows of text, each of a task with `label_words`, are scored.

        Args:
            x: as in `fit`; texts hold the mask token once. A stream gives logits, as tokens do, or
                tasks without words.
            batch_size, verbose, steps, callbacks: as in `keras.Model.predict`, with its defaults;
                of these, scores take `batch_size` alone.

        Returns:
            Logits (B, P, V); or what `score(x)` gives, (B, C).
        """
        if not have_words(self.model_inputs, x):
            return super().predict(x, batch_size, verbose, steps, callbacks)
        return self.score(as_columns(x), batch_size=batch_size)

    def _scored(
        self, inputs: Any, candidates: Any, task_ids: TaskIds | None, options: Options
    ) -> tuple[np.ndarray, Candidates]:
        return score_masks(self.functions, self, inputs, candidates, task_ids, options)

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
        """What keras-hub's task is made with, and how texts are cut."""
        return {"head_config": self.head_config, "truncation_side": self.truncation_side}
