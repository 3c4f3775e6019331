"""Models of every task type, as small as can be."""

from typing import Any

import keras_hub
import numpy as np

import keras_mpt
from tests import tiny

TASKS = 3
CLASSES = [2, 4, 3]

# What the page calls them, with a backbone and a task type each; the last has a prompt alone.
CASES = {
    "backbone (BERT)": ("bert", "FEATURE_EXTRACTION"),
    "text classifier (BERT)": ("bert", "SEQ_CLS"),
    "token classifier (BERT)": ("bert", "TOKEN_CLS"),
    "question answerer (BERT)": ("bert", "QUESTION_ANS"),
    "masked LM (BERT)": ("bert", None),
    "causal LM (GPT-2)": ("gpt2", "CAUSAL_LM"),
    "causal LM (Llama)": ("llama", "CAUSAL_LM"),
    "seq2seq LM (T5)": ("t5", "SEQ_2_SEQ_LM"),
    "text classifier (RoBERTa), one prompt": ("roberta", "SEQ_CLS"),
}


def make(name: str, **kwargs: Any) -> Any:
    """A model with weights that do not make all it is given small."""
    kind, task_type = CASES[name]
    large = tiny.backbone(kind, **kwargs)
    small = type(large).from_config({**large.get_config(), "num_layers": 1})
    backbone = tiny.with_large_weights(small)
    base = keras_hub.models.BertMaskedLM(backbone) if task_type is None else backbone
    if name.endswith("one prompt"):
        config = keras_mpt.PromptTuningConfig(task_type=task_type, num_virtual_tokens=3)
        return keras_mpt.prompt_tune(base, config, num_classes=3)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=3, num_tasks=TASKS
    )
    has_classes = task_type in ("SEQ_CLS", "TOKEN_CLS")
    model = keras_mpt.prompt_tune(base, config, **({"num_classes": CLASSES} if has_classes else {}))
    # As they start, all tasks have one prompt.
    rng = np.random.default_rng(1)
    model.prompt.prefix_task_cols.assign(rng.normal(1, 0.5, model.prompt.prefix_task_cols.shape))
    return model


def inputs(model: Any, rows: int, length: int) -> dict[str, np.ndarray]:
    """Rows of all tasks, odd ones padded on the right, as int32."""
    x = tiny.inputs(model.backbone, rows, length, seed=rows)
    if model.model_inputs.takes_mask_positions:
        x["mask_positions"] = np.tile([[1, 0]], (rows, 1))
    if model.model_inputs.has_tasks:
        x["task_ids"] = np.arange(rows) % TASKS
    return {name: np.asarray(x[name], "int32") for name in model.model_inputs.names}
