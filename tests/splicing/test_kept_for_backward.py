"""What a step keeps for the way back: no more than the layers after the prompt need.

On PyTorch alone, where what is kept can be seen. On JAX and TensorFlow gradients are asked of the
trained variables, and what leads to none of them is not among what is kept.
"""

import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.splicing.cut import cut
from tests import tiny
from tests.marks import only_torch

pytestmark = only_torch
ROWS, TOKENS, LENGTH = 4, 12, 5


def kept_bytes(frozen, run):
    """The bytes that autograd keeps for the way back through `run`, weights left out."""
    import torch

    weights = {v.value.untyped_storage().data_ptr() for v in frozen.weights}
    found = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)  # Alive: addresses stay its own.
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = run()
    return sum(size for size, _ in found.values()), outputs


@pytest.mark.parametrize("kind", ["bert", "roberta", "t5"])
def test_a_splice_keeps_what_the_backbone_keeps_of_as_many_embeddings(kind):
    backbone = tiny.backbone(kind, dropout=0.0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=LENGTH, num_tasks=2, num_transformer_submodules=1
    )
    model = keras_mpt.prompt_tune(backbone, config)
    x = {**tiny.inputs(backbone, ROWS, TOKENS), "task_ids": np.array([0, 1, 1, 0])}
    found, outputs = kept_bytes(backbone, lambda: model(x, training=True))

    graph, inputs = cut(backbone), {**tiny.inputs(backbone, ROWS, TOKENS)}
    embedded = []
    for i, token_input in enumerate(graph.token_inputs):
        extra = LENGTH if i == 0 else 0
        values = ops.convert_to_tensor(
            np.random.default_rng(0).normal(size=(ROWS, TOKENS + extra, tiny.WIDTH)), "float32"
        )
        embedded.append(values.requires_grad_() if i == 0 else values)
        for name in (token_input.mask_name, *token_input.other_names):
            inputs[name] = np.pad(inputs[name], [(0, 0), (0, extra)], constant_values=1)
    plain = [ops.convert_to_tensor(inputs[name]) for name in graph.plain_names]
    least, _ = kept_bytes(backbone, lambda: graph.rest([*embedded, *plain], training=True))
    # P ∘ (cols · rows): each factor of the two products, and ids and masks beside them.
    of_prompt = 4 * 3 * ROWS * LENGTH * tiny.WIDTH + 8 * ROWS * 2 * (TOKENS + LENGTH)
    assert 0 < found - least <= of_prompt

    flat = outputs.values() if isinstance(outputs, dict) else [outputs]
    sum(output.sum() for output in flat).backward()
    assert all(v.value.grad is None for v in backbone.weights)
    assert all(v.value.grad is not None for v in model.trainable_variables)
