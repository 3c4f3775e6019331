"""PyTorch's own way to save: `model.state_dict()` and `load_state_dict`."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.marks import only_torch

pytestmark = only_torch


def classifier(seed):
    """A classifier with a head per task, whose weights the seed decides."""
    keras.utils.clear_session()  # Names count from 0, as in a process of its own.
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=3, num_tasks=2, task_names=["tone", "topic"]
    )
    backbone = tiny.with_large_weights(tiny.backbone("bert"), seed)
    model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def language_model(seed):
    """A causal language model."""
    keras.utils.clear_session()
    config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    return keras_mpt.prompt_tune(tiny.with_large_weights(tiny.backbone("gpt2"), seed), config)


@pytest.mark.parametrize("build", [classifier, language_model])
def test_a_model_is_saved_and_restored(build, tmp_path):
    import torch

    model, other = build(0), build(1)
    x = tiny.inputs(model.backbone)
    if model.model_inputs.has_tasks:
        x["task_ids"] = [0, 1, 1, 0]
    wanted = ops.convert_to_numpy(model(x))
    assert np.abs(ops.convert_to_numpy(other(x)) - wanted).max() > 0.1
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        if "seed_generator" not in ours.path:
            np.testing.assert_array_equal(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs))
    np.testing.assert_array_equal(ops.convert_to_numpy(other(x)), wanted)


def test_all_weights_are_in_it_also_after_tasks_were_added():
    model = classifier(0)

    def held():
        values = {v.data_ptr() for v in model.state_dict().values()}
        return [v.path for v in model.variables if v.value.data_ptr() not in values]

    assert not held()
    model.add_task("third", from_="tone", num_classes=4)
    model.remove_task("topic")
    assert not held()
    shapes = {tuple(v.shape) for v in model.state_dict().values()}
    assert (2, 3, 1) in shapes and (tiny.WIDTH, 6) in shapes
    assert (3, 3, 1) not in shapes and (tiny.WIDTH, 9) not in shapes


def test_the_layers_too():
    layer = keras_mpt.MultitaskPromptEmbedding(3, 4, 2)
    layer.build()
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    assert len(state) == 3
    layer.prompt_embeddings.assign(ops.zeros((3, 4)))
    layer.load_state_dict(state)
    assert np.abs(ops.convert_to_numpy(layer.prompt_embeddings)).max() > 0
