"""One call for one prompt or many."""

import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.prompts.prompt import Prompt
from tests.marks import IS_EAGER
from tests.prompts.helpers import numpy_prompts, random_layer


def test_one_prompt_is_every_row_s():
    layer = keras_mpt.PromptEmbedding(3, 4)
    found = ops.convert_to_numpy(layer.for_rows(None, 5))
    prompt = layer.get_peft_state_dict()["prompt_embeddings"]
    np.testing.assert_array_equal(found, np.broadcast_to(prompt, (5, 3, 4)))
    assert layer.tasks is None
    with pytest.raises(ValueError, match="`task_ids` should be None: this layer has one prompt"):
        layer.for_rows([0], 1)


@pytest.mark.parametrize(
    "task_ids", [[2, 0, 2, 1], 2, np.int64(1), np.array([1, 1, 0, 2], "uint8")]
)
def test_each_row_has_its_own_task_s(task_ids):
    layer = random_layer(num_tasks=3, num_virtual_tokens=3, token_dim=4, num_ranks=2)
    found = ops.convert_to_numpy(layer.for_rows(ops.convert_to_tensor(task_ids), 4))
    ids = np.broadcast_to(task_ids, 4).astype(int)
    np.testing.assert_allclose(
        found, numpy_prompts(layer.get_peft_state_dict(), ids), rtol=1e-5, atol=1e-6
    )
    assert layer.tasks == 3


def test_ids_that_no_task_has_give_nan_and_none_an_error():
    layer = random_layer(num_tasks=3, num_virtual_tokens=3, token_dim=4)
    found = ops.convert_to_numpy(layer.for_rows(ops.convert_to_tensor([1, 3, -1]), 3))
    assert np.isnan(found).all(axis=(1, 2)).tolist() == [False, True, True]
    for wrong in (3, [0, -1], np.array([1, 7])):
        with pytest.raises(ValueError, match=r"`task_ids` should lie in \[0, 3\)"):
            layer.for_rows(wrong, 2)
    with pytest.raises(ValueError, match="`task_ids` should be given: one of this layer's 3 tasks"):
        layer.for_rows(None, 2)


def test_it_is_the_same_in_half_precision():
    layer = random_layer(num_tasks=3, num_virtual_tokens=3, token_dim=4, dtype="mixed_bfloat16")
    ids = np.array([2, 0])
    found, called = layer.for_rows(ops.convert_to_tensor(ids), 2), layer(ids)
    assert found.dtype == called.dtype
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(ops.cast(x, "float32")) for x in (found, called))
    )


def test_both_layers_are_leaves_of_one_base():
    layers = keras_mpt.PromptEmbedding, keras_mpt.MultitaskPromptEmbedding
    assert all(layer.__bases__ == (Prompt,) for layer in layers)
    with pytest.raises(TypeError, match="abstract"):
        Prompt(3, 4, 1, "zeros", True)


@pytest.mark.skipif(not IS_EAGER, reason="elsewhere no module has this interface")
def test_pytorch_s_names_are_pytorch_s():
    """Nothing public in a class of ours hides what `torch.nn.Module` promises under that name."""
    import torch

    from keras_mpt.fitting.fitting import Fitting
    from keras_mpt.training.term_report import RowsMetric

    promised = {n for n in dir(torch.nn.Module) if not n.startswith("_")}
    subclasses, found = [Fitting, Prompt, keras_mpt.models.TaskHeads, RowsMetric], []
    while subclasses:
        found.append(subclasses.pop())
        subclasses += found[-1].__subclasses__()
    assert keras_mpt.models.PromptTunedCausalLM in found and keras_mpt.Distillation in found
    # Keras itself has these two; ours call Keras's, which PyTorch gets to see as well.
    hidden = {(c.__name__, n) for c in found for n in vars(c) if n in promised - {"compile"}}
    assert not hidden
