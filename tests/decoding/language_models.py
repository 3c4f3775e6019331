"""Small language models of three tasks, and what they are asked."""

import numpy as np

import keras_mpt
from tests import tiny

IDS = np.array([[5, 6, 7, 0, 0, 0, 0, 0], [4, 3, 0, 0, 0, 0, 0, 0]])
KINDS = {"gpt2": "CAUSAL_LM", "bart": "SEQ_2_SEQ_LM", "t5": "SEQ_2_SEQ_LM"}


def make(kind, preprocessor=None):
    """A language model of three tasks whose weights are large enough for prompts to matter."""
    backbone = tiny.backbone(kind)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=KINDS[kind], num_virtual_tokens=3, num_tasks=3, task_names=["a", "b", "c"]
    )
    model = keras_mpt.prompt_tune(backbone, config, preprocessor=preprocessor)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(scale=0.5, size=variable.shape))
    model.compile(sampler="greedy")
    return model


def inputs(kind):
    """Two rows of different lengths, padded on the right, for each of the model's stacks."""
    sides = ("",) if KINDS[kind] == "CAUSAL_LM" else ("encoder_", "decoder_")
    x = {f"{side}token_ids": IDS for side in sides}
    return x | {f"{side}padding_mask": (IDS != 0).astype(int) for side in sides}


def generated(out):
    """The tokens among a result."""
    return next(value for name, value in out.items() if name.endswith("token_ids"))
