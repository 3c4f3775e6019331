"""Models that are looked at: small, with random prompts."""

import keras_hub
import numpy as np

import keras_mpt
from tests import tiny

NAMES = ["tone", "topic", "intent"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "goal", "vote", "$the$"]


def make(kind="plain", **kwargs):
    """A classifier of three tasks with prompts of two ranks, not yet randomized."""
    defaults = {"task_type": "SEQ_CLS", "num_virtual_tokens": 4, "num_tasks": 3, "num_ranks": 2}
    config = keras_mpt.MultitaskPromptTuningConfig(
        **{**defaults, "task_names": NAMES, "seed": 0, **kwargs}
    )
    return keras_mpt.prompt_tune(tiny.backbone(kind), config, num_classes=3)


def randomized(model, seed=0):
    """The model with random prompts: W_k is 1 and something of its own."""
    rng = np.random.default_rng(seed)
    for name, variable in model.prompt.named_weights().items():
        value = np.asarray(rng.normal(size=variable.shape))
        variable.assign(value if name == "prompt_embeddings" else 1 + 0.3 * value)
    return model


def single():
    """A model without tasks, whose prompt is of tokens of the vocabulary, and a tokenizer."""
    tokenizer = keras_hub.tokenizers.DistilBertTokenizer(WORDS, lowercase=True)
    preprocessor = keras_hub.models.DistilBertTextClassifierPreprocessor(
        tokenizer, sequence_length=8
    )
    config = keras_mpt.PromptTuningConfig(
        task_type="SEQ_CLS",
        num_virtual_tokens=4,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text="good bad goal vote",
    )
    return keras_mpt.prompt_tune(
        tiny.backbone("plain"), config, num_classes=2, preprocessor=preprocessor
    )


def weights(model):
    """P, cols and rows in float64."""
    return [value.astype("float64") for value in model.prompt.get_peft_state_dict().values()]
