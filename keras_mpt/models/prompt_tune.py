"""From a keras-hub model to a prompt-tuned one, in one call."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import keras

from keras_mpt.adapters.directory import load
from keras_mpt.adapters.head_names import output_weight
from keras_mpt.adapters.reading import Adapter, read_adapter
from keras_mpt.config import PromptTuningConfig
from keras_mpt.config_values import TaskType
from keras_mpt.fitting.other_names import check_config, check_model_keywords
from keras_mpt.models.arguments import adapter_parts
from keras_mpt.models.fitted import config_for_task
from keras_mpt.models.language_model import LanguageModel
from keras_mpt.models.prompt_tuned_backbone import PromptTunedBackbone
from keras_mpt.models.prompt_tuned_causal_lm import PromptTunedCausalLM
from keras_mpt.models.prompt_tuned_masked_lm import PromptTunedMaskedLM
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.models.prompt_tuned_question_answerer import PromptTunedQuestionAnswerer
from keras_mpt.models.prompt_tuned_seq2seq_lm import PromptTunedSeq2SeqLM
from keras_mpt.models.prompt_tuned_text_classifier import PromptTunedTextClassifier
from keras_mpt.models.prompt_tuned_token_classifier import PromptTunedTokenClassifier
from keras_mpt.types import Backbone, Task

_BY_TASK_TYPE: dict[TaskType | str | None, type[PromptTunedModel]] = {
    None: PromptTunedBackbone,
    TaskType.FEATURE_EXTRACTION: PromptTunedBackbone,
    TaskType.SEQ_CLS: PromptTunedTextClassifier,
    TaskType.TOKEN_CLS: PromptTunedTokenClassifier,
    TaskType.QUESTION_ANS: PromptTunedQuestionAnswerer,
    TaskType.CAUSAL_LM: PromptTunedCausalLM,
    TaskType.SEQ_2_SEQ_LM: PromptTunedSeq2SeqLM,
}
_WITH_CLASSES = (TaskType.SEQ_CLS, TaskType.TOKEN_CLS)


def prompt_tune(
    base: Backbone | Task, config: PromptTuningConfig, **kwargs: Any
) -> PromptTunedModel:
    """A prompt-tuned model on a keras-hub model, which is frozen and shared, not copied.

    Args:
        base: a `keras_hub.models.Backbone`, `TextClassifier`, `CausalLM`, `Seq2SeqLM` or
            `MaskedLM`. For a bare backbone the config's `task_type` decides which model it becomes;
            none of them is a masked language model's, whose head no backbone has.
        config: a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.
        **kwargs: further arguments of the model, such as `num_classes` or `preprocessor`.

    Returns:
        A `PromptTunedModel`: by the base and the config's `task_type` a `PromptTunedBackbone`,
        `PromptTunedTextClassifier`, `PromptTunedTokenClassifier`, `PromptTunedQuestionAnswerer`,
        `PromptTunedCausalLM`, `PromptTunedSeq2SeqLM` or `PromptTunedMaskedLM`.

    Raises:
        ValueError: a `base` or a `task_type` that none of them is for.

    Example:
        ```python
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=3
        )
        model = keras_mpt.prompt_tune(backbone, config)
        ```

    Source: PEFT `get_peft_model`.
    """
    import keras_hub

    if isinstance(base, keras.Model):
        check_config(config)
    tasks = keras_hub.models
    if isinstance(base, tasks.TextClassifier):
        config_for_task(config, PromptTunedTextClassifier.task_type)
        return PromptTunedTextClassifier.from_classifier(base, config, **kwargs)
    if isinstance(base, tasks.CausalLM):
        several_inputs = "decoder_token_ids" in (t.name for t in base.backbone.inputs)
        cls: type[LanguageModel] = PromptTunedSeq2SeqLM if several_inputs else PromptTunedCausalLM
        # Before arguments that are another model's.
        config_for_task(config, cls.task_type)
        _check_no_classes(config, kwargs)
        return cls.from_task(base, config, **kwargs)
    if isinstance(base, tasks.MaskedLM):
        config_for_task(config, PromptTunedMaskedLM.task_type)
        _check_no_classes(config, kwargs)
        return PromptTunedMaskedLM.from_task(base, config, **kwargs)
    if not hasattr(base, "inputs") or isinstance(base, tasks.Task):
        raise not_a_base(base)
    if config.task_type not in _BY_TASK_TYPE:
        known = ", ".join(repr(str(t)) for t in _BY_TASK_TYPE)
        raise ValueError(
            f"`task_type` should be one of {known} for a bare backbone. Received: "
            f"task_type='{config.task_type}'"
        )
    check_model_keywords(_BY_TASK_TYPE[config.task_type], kwargs)
    if config.task_type in _WITH_CLASSES and "num_classes" not in kwargs:
        raise ValueError(
            f"`num_classes` should be given for task_type='{config.task_type}': an integer, or one "
            "per task. Received: none"
        )
    # A question answerer says itself why it takes none.
    if config.task_type not in (*_WITH_CLASSES, TaskType.QUESTION_ANS):
        _check_no_classes(config, kwargs)
    return _BY_TASK_TYPE[config.task_type](base, config, **kwargs)


def _check_no_classes(config: PromptTuningConfig, given: Mapping[str, Any]) -> None:
    """Refuses a number of classes for a model without a head of them."""
    if "num_classes" in given:
        raise ValueError(
            "`task_type` should be 'SEQ_CLS' or 'TOKEN_CLS' where `num_classes` is given. "
            f"Received: task_type={config.task_type and str(config.task_type)!r} with "
            f"num_classes={given['num_classes']!r}"
        )


def not_a_base(base: Any) -> ValueError:
    """The error for what no prompt can be put on."""
    return ValueError(
        "`base` should be a keras-hub Backbone, TextClassifier, CausalLM, Seq2SeqLM or "
        f"MaskedLM. Received: a {type(base).__name__}"
    )


def load_adapter(
    base: Backbone | Task, directory: str | os.PathLike[str], **kwargs: Any
) -> PromptTunedModel:
    """A prompt-tuned model from a keras-hub model and a saved adapter; it can be trained on.

    Args:
        base: as in `prompt_tune`.
        directory: string. An adapter's directory that PEFT or keras_mpt wrote. One that PEFT wrote
            has `prompt_position="before"`.
        **kwargs: further arguments of the model, such as `preprocessor`.

    Returns:
        As `prompt_tune`.

    Raises:
        ValueError: a missing or broken file, or an adapter that does not fit `base`.

    Example:
        ```python
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=3
        )
        keras_mpt.prompt_tune(backbone, config).save_adapter(tmp_path / "adapter")
        model = keras_mpt.load_adapter(backbone, tmp_path / "adapter")
        ```

    Source: PEFT `PeftModel.from_pretrained`.
    """
    return load_read_adapter(base, read_adapter(directory), **kwargs)


def load_read_adapter(base: Backbone | Task, adapter: Adapter, **kwargs: Any) -> PromptTunedModel:
    """As `load_adapter`, of an adapter that was read."""
    # PEFT marks every saved adapter as for inference only, and cannot train it on; ours can be.
    config = dataclasses.replace(adapter.config, inference_mode=False)
    kwargs = {**head_arguments(adapter), **kwargs}
    model = prompt_tune(base, config, **kwargs, initialize=False)
    load(adapter_parts(model), adapter)
    return model


def head_arguments(adapter: Adapter) -> dict[str, Any]:
    """What a saved head was built with: written by us, or seen in PEFT's weights."""
    task_type = adapter.config.task_type
    if task_type not in _WITH_CLASSES:
        return {}
    names = ("num_classes", "pooling", "head_config")
    found = {name: adapter.own_fields[name] for name in names if name in adapter.own_fields}
    output = None if found else output_weight(dict(adapter.state))
    if output is not None:
        module, weight = output
        found["num_classes"] = int(weight.shape[0])
        if module == "score" and task_type == TaskType.SEQ_CLS:
            found["pooling"] = "last"
    return found
