"""Two tasks of kinds of their own, and what is measured of them in NumPy."""

import functools

import keras
import numpy as np
from keras import ops

import keras_mpt
from tests import tiny

NAMES, TASK_IDS = ["nli", "score"], np.array([0, 1, 0, 0, 1, 0])
LABELS = np.array([0, 1, 2, 1, 0, 2])
# Targets of which task 1 takes any number.
SCORES = np.array([0, 0.1, 2, 1, 3.7, 2])


@functools.cache
def make(*num_classes):
    """A classifier with random weights, its inputs and its logits in float64."""
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=list(num_classes))
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    x = {**tiny.inputs(model.backbone, rows=6), "task_ids": TASK_IDS}
    return model, x, ops.convert_to_numpy(model(x)).astype("float64")


def evaluate(model, x, y, **kwargs):
    """All logs, in one batch."""
    return model.evaluate(x, y, verbose=0, return_dict=True, **kwargs)


def rows_of(x, k):
    """The inputs of one task's rows."""
    return {name: value[k == TASK_IDS] for name, value in x.items()}


def log_softmax(logits):
    """In float64."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def own_logits(logits, num_classes):
    """Each row's logits of its own task's classes."""
    return [row[: num_classes[k]] for row, k in zip(logits, TASK_IDS, strict=True)]


def of_tokens(kind, **kwargs):
    """A model with a target per token, its inputs and its logits in float64."""
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=kind, num_virtual_tokens=2, num_tasks=2, task_names=NAMES
    )
    backbone = tiny.backbone("gpt2" if kind == "CAUSAL_LM" else "plain")
    model = keras_mpt.prompt_tune(tiny.with_large_weights(backbone), config, **kwargs)
    x = {**tiny.inputs(backbone, rows=6), "task_ids": TASK_IDS}
    return model, x, model.predict(x, verbose=0).astype("float64")
