"""Small models of two tasks with each sort of head, and what they hold."""

import numpy as np
from keras import ops

import keras_mpt
from tests import tiny

NAMES = ["a", "b"]


def config(**kwargs):
    """A multitask config of two tasks."""
    defaults = {"num_virtual_tokens": 3, "num_tasks": 2, "num_ranks": 2, "task_names": NAMES}
    return keras_mpt.MultitaskPromptTuningConfig(**{**defaults, **kwargs})


def randomized(model):
    """The model with random trained weights, so that no two tasks are alike."""
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def make(kind="heads", **kwargs):
    """A model of each sort of head on the small backbone."""
    backbone, models = tiny.backbone("plain"), keras_mpt.models
    match kind:
        case "heads":
            dtype = kwargs.pop("dtype", None)
            of_tasks = config(**kwargs)
            model = models.PromptTunedTextClassifier(backbone, of_tasks, [2, 3], dtype=dtype)
        case "shared head":
            model = models.PromptTunedTextClassifier(backbone, config(**kwargs), 3)
        case "heads of tokens":
            model = models.PromptTunedTokenClassifier(backbone, config(**kwargs), [2, 3])
        case "backbone":
            model = models.PromptTunedBackbone(backbone, config(**kwargs))
    return randomized(model)


def predict(model, *names):
    """Each task's predictions on the same rows, by its name."""
    x = tiny.inputs(model.backbone)
    return {n: model.predict({**x, "task_ids": n}, verbose=0) for n in names}


def state(model):
    """Everything that a refused call must leave as it is."""
    weights = [ops.convert_to_numpy(v) for v in model.weights]
    return model.config, model.optimizer, model.num_classes, weights


def assert_unchanged(model, before):
    """The model has the objects and the weights of `before`."""
    after = state(model)
    assert after[0] is before[0]
    assert after[1] is before[1]
    assert after[2] == before[2]
    for a, b in zip(after[3], before[3], strict=True):
        np.testing.assert_array_equal(a, b)
