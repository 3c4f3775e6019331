"""Adapters of different lengths, ranks and tasks on one backbone, their own models, and rows."""

import keras
import numpy as np

import keras_mpt
from tests import tiny

# Lengths that are the first's, shorter and longer; with tasks, with one, and without.
SIZES = {"a": (4, 2, 1), "b": (6, 3, 2), "c": (4, 0, 0), "d": (3, 1, 1)}
ROWS = ["a/0", "b/1", "c", "a/1", "d", "b/2"]
CLASSES = {"a": [2, 3], "b": [2, 3, 4], "c": 5, "d": 3}


def config(name, task_type, **kwargs):
    """An adapter's config."""
    length, tasks, rank = SIZES[name]
    kwargs = {"task_type": task_type, "num_virtual_tokens": length, **kwargs}
    if not tasks:
        return keras_mpt.PromptTuningConfig(**kwargs)
    return keras_mpt.MultitaskPromptTuningConfig(num_tasks=tasks, num_ranks=rank, **kwargs)


def randomized(model, seed):
    """The model with random trained weights, so that no two prompts are alike."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


def models(backbone, task_type, folder, names="abcd", configs=None, **kwargs):
    """A model of each adapter on the backbone, saved under its name."""
    made = {}
    for seed, name in enumerate(names):
        own = dict(kwargs)
        if task_type in ("SEQ_CLS", "TOKEN_CLS"):
            own["num_classes"] = CLASSES[name]
        given = config(name, task_type, **(configs or {}).get(name, {}))
        made[name] = randomized(keras_mpt.prompt_tune(backbone, given, **own), seed)
        made[name].save_adapter(folder / name)
    return made


def own_inputs(models, x, rows, i):
    """One row as its own model takes it, and that model."""
    name, _, task = rows[i].partition("/")
    own = {key: value[i : i + 1] for key, value in x.items()}
    model = models[name]
    if model.model_inputs.has_tasks:
        own["task_ids"] = np.array([int(task or 0)])
    return model, own


def assert_equal_to_own_models(found, models, x, rows):
    """Each row's outputs are its own model's: to 1e-6 of the largest."""
    for i in range(len(rows)):
        model, own = own_inputs(models, x, rows, i)
        expected = model.predict(own, verbose=0)
        pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
        for ours, (theirs,) in pairs:
            assert_equal_outputs(ours[i], theirs)


def assert_equal_outputs(found, expected):
    """One row's; classes that the row has not are −1e9."""
    has_classes = found.shape[-1] != expected.shape[-1]
    if has_classes:
        assert (found[..., expected.shape[-1] :] == -1e9).all()
        found = found[..., : expected.shape[-1]]
    is_there = expected > -1e8
    np.testing.assert_array_equal(found[~is_there], expected[~is_there])
    found, expected = found[is_there], expected[is_there]
    most = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * most)


def backbone(kind):
    """A backbone that looks at its prompts."""
    # T5 does not divide its scores by √d: rows that are only padded wider would already differ by
    # 2e-6 in their own model. GPT-2's would by 1.003e-6, on a processor without AVX-512.
    deviation = 0.15 if kind in ("t5", "gpt2") else 0.3
    return tiny.with_large_weights(tiny.backbone(kind), deviation=deviation)
