"""Two adapters that differ in all that an adapter holds, and which of them a directory holds."""

import numpy as np

import keras_mpt
from keras_mpt.adapters.reading import read_adapter
from tests import tiny

# By the value of every weight. The second has the first's labels swapped.
PAIR = {1.0: (["good", "bad"], [2, 3]), 2.0: (["bad", "good"], [3, 2])}


def make_pair():
    """A model of each adapter, on one backbone, by the value of its weights."""
    backbone, models = tiny.backbone("plain"), {}
    for value, (names, classes) in PAIR.items():
        config = keras_mpt.MultitaskPromptTuningConfig(
            num_virtual_tokens=3, num_tasks=2, num_ranks=int(value), task_names=names
        )
        model = keras_mpt.models.PromptTunedTextClassifier(backbone, config, classes)
        for variable in model.trainable_variables:
            variable.assign(np.full(variable.shape, value))
        models[value] = model
    return models


def held(directory):
    """Which of the pair a directory holds: 1.0 or 2.0; `"torn"`, or an error's words.

    What is read here is all that `load_adapter` reads.
    """
    try:
        found = read_adapter(directory)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    values = {float(v) for array in found.state.values() for v in array.flat}
    value = values.pop()
    is_whole = not values and PAIR.get(value) == (found.config.task_names, found.own["num_classes"])
    return value if is_whole else "torn"
