"""Task prompts: their values, their gradients, how they train, and how they start."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.prompts.helpers import (
    gradients,
    model_of,
    numpy_adam,
    numpy_prompts,
    peft_module,
    random_layer,
)

# Repeated, out of order, and one task is missing.
TASK_IDS = np.array([2, 0, 2, 2, 3], "int32")
# A permutation of the slots in each row, the identity among them.
PERMUTED = np.stack([np.roll(np.arange(4), shift) for shift in (1, 0, 3, 2, 2)]).astype("int32")


def test_worked_by_hand():
    layer = keras_mpt.MultitaskPromptEmbedding(num_tasks=2, num_virtual_tokens=2, token_dim=2)
    layer.set_peft_state_dict(
        {
            "prompt_embeddings": np.array([[1.0, 2.0], [3.0, 4.0]]),
            "prefix_task_cols": np.array([[[1.0], [0.0]], [[2.0], [3.0]]]),
            "prefix_task_rows": np.array([[[1.0, -1.0]], [[5.0, 7.0]]]),
        }
    )
    found = ops.convert_to_numpy(layer([1, 0, 1]))
    # Task 0 scales by [[1, -1], [0, 0]], task 1 by [[10, 14], [15, 21]].
    first, second = [[1, -2], [0, 0]], [[10, 28], [45, 84]]
    np.testing.assert_array_equal(found, [second, first, second])


def test_worked_by_hand_with_two_ranks():
    layer = keras_mpt.MultitaskPromptEmbedding(
        num_virtual_tokens=2, token_dim=2, num_tasks=1, num_ranks=2
    )
    layer.set_peft_state_dict(
        {
            "prompt_embeddings": np.array([[1.0, 2.0], [3.0, 4.0]]),
            "prefix_task_cols": np.array([[[1.0, 2.0], [3.0, 4.0]]]),
            "prefix_task_rows": np.array([[[1.0, 1.0], [0.0, 1.0]]]),
        }
    )
    # cols · rows = [[1, 3], [3, 7]].
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(0)), [[[1, 6], [9, 28]]])


@pytest.mark.parametrize("indices", [None, PERMUTED], ids=["in_order", "permuted"])
@pytest.mark.parametrize(("ranks", "submodules"), [(1, 1), (2, 1), (2, 2)])
def test_equals_numpy(ranks, submodules, indices):
    layer = random_layer(num_tasks=4, num_ranks=ranks, num_transformer_submodules=submodules)
    if indices is not None and submodules == 2:
        indices = np.concatenate([indices + 4, indices], axis=1)
    found = ops.convert_to_numpy(layer(TASK_IDS, indices=indices))
    wanted = numpy_prompts(layer.get_peft_state_dict(), TASK_IDS, indices)
    assert found.shape == wanted.shape == (5, 4 * submodules, 6)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("indices", [None, PERMUTED], ids=["in_order", "permuted"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_equals_peft_forward_and_backward(ranks, indices):
    layer = random_layer(num_tasks=4, num_ranks=ranks)
    module = peft_module(layer)
    import torch

    cotangent = np.random.default_rng(2).normal(size=(5, 4, 6)).astype("float32")
    in_order = np.tile(np.arange(4), (5, 1))
    given = torch.tensor(in_order if indices is None else indices)
    expected = module(given, torch.tensor(TASK_IDS))
    (expected * torch.tensor(cotangent)).sum().backward()

    model = model_of(layer, None if indices is None else 4)
    inputs = TASK_IDS if indices is None else [TASK_IDS, indices]
    found = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-6, atol=1e-6)
    wanted = {
        "prompt_embeddings": module.embedding.weight.grad,
        "prefix_task_cols": module.prefix_task_cols.grad,
        "prefix_task_rows": module.prefix_task_rows.grad,
    }
    ours = gradients(model, inputs, cotangent)
    assert set(ours) == set(wanted)
    for name, gradient in wanted.items():
        np.testing.assert_allclose(ours[name], gradient.numpy(), rtol=1e-6, atol=1e-6, err_msg=name)
    # A task that is not in the batch gets none.
    assert not ours["prefix_task_cols"][1].any() and not ours["prefix_task_rows"][1].any()


def mse_gradients(weights, task_ids, target):
    """Of the mean squared error to `target`, worked out on paper, in float64."""
    shared, cols, rows = weights.values()
    error = 2 * (numpy_prompts(weights, task_ids) - target) / target.size
    scaled = error * shared
    found = {name: np.zeros_like(value) for name, value in weights.items()}
    found["prompt_embeddings"] = (error * np.matmul(cols[task_ids], rows[task_ids])).sum(0)
    np.add.at(found["prefix_task_cols"], task_ids, scaled @ rows[task_ids].transpose(0, 2, 1))
    np.add.at(found["prefix_task_rows"], task_ids, cols[task_ids].transpose(0, 2, 1) @ scaled)
    return found


@pytest.mark.parametrize("ranks", [1, 2])
def test_adam_through_fit_with_repeated_ids(ranks):
    """Sparse gradients would make TensorFlow's Adam skip tasks that a batch leaves out."""
    layer = random_layer(num_tasks=4, num_ranks=ranks)
    start = layer.get_peft_state_dict()
    x = np.array([0, 0, 2, 1, 1, 1, 3, 0, 3, 0, 0, 0], "int32")
    y = np.random.default_rng(3).normal(size=(12, 4, 6)).astype("float32")
    model = model_of(layer)
    model.compile(keras.optimizers.Adam(0.01), loss="mse")
    model.fit(x, y, batch_size=3, epochs=2, shuffle=False, verbose=0)
    batches = [(x[i : i + 3], y[i : i + 3]) for i in range(0, 12, 3)] * 2
    expected = numpy_adam(start, batches, mse_gradients, 0.01)
    for name, value in layer.get_peft_state_dict().items():
        assert np.abs(value - start[name]).max() > 0.05
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("ranks", [1, 3])
def test_ones_starts_every_task_at_the_shared_prompt(ranks):
    layer = keras_mpt.MultitaskPromptEmbedding(4, 6, 3, num_ranks=ranks)
    found = ops.convert_to_numpy(layer([0, 1, 2]))
    shared = layer.get_peft_state_dict()["prompt_embeddings"]
    assert np.abs(shared).min() > 0
    np.testing.assert_array_equal(found, np.stack([shared] * 3))


def test_ones_leaves_every_rank_trainable():
    layer = keras_mpt.MultitaskPromptEmbedding(4, 6, 3, num_ranks=3)
    model = model_of(layer)
    target = np.random.default_rng(4).normal(size=(3, 4, 6)).astype("float32")
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    model.fit(np.arange(3), target, batch_size=3, verbose=0)
    found = gradients(model, np.arange(3, dtype="int32"), target)
    assert np.abs(found["prefix_task_cols"]).max(axis=1).min() > 0  # Per task and rank.
    assert np.abs(found["prefix_task_rows"]).max(axis=2).min() > 0


def test_normal_starts_as_peft_does():
    layer = keras_mpt.MultitaskPromptEmbedding(20, 32, 1000, num_ranks=2, task_init="normal")
    state = layer.get_peft_state_dict()
    for name in ("prefix_task_cols", "prefix_task_rows"):
        # Of 40,000 draws and more the deviation has a standard error under 0.4 %.
        assert state[name].std() == pytest.approx(0.02, rel=0.015)
        assert abs(state[name].mean()) < 0.02 * 0.02
    both = [state[name].ravel()[:40_000] for name in ("prefix_task_cols", "prefix_task_rows")]
    assert abs(np.corrcoef(both)[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("name", "wrong"), [("num_tasks", 0), ("num_ranks", 1.5), ("num_tasks", True)]
)
def test_wrong_sizes(name, wrong):
    sizes = {"num_tasks": 2, "num_virtual_tokens": 4, "token_dim": 8, name: wrong}
    with pytest.raises(ValueError, match=f"`{name}` should be a positive integer.*{wrong}"):
        keras_mpt.MultitaskPromptEmbedding(**sizes)


def test_wrong_task_init():
    with pytest.raises(ValueError, match="`task_init` should be 'ones' or 'normal'.*'zeros'"):
        keras_mpt.MultitaskPromptEmbedding(4, 8, 2, task_init="zeros")


def test_parameter_counts_worked_by_hand():
    # 20·768 shared, and for each of 10 tasks 8 ranks of 20 + 768.
    assert keras_mpt.multitask_parameter_count(20, 768, num_tasks=10, num_ranks=8) == 78_400
    assert keras_mpt.full_prompt_parameter_count(20, 768, num_tasks=10) == 153_600


@pytest.mark.parametrize(
    ("tasks", "length", "width", "ranks", "submodules"), [(10, 20, 768, 8, 1), (4, 4, 6, 2, 2)]
)
def test_parameter_counts_are_the_layers(tasks, length, width, ranks, submodules):
    layer = keras_mpt.MultitaskPromptEmbedding(length, width, tasks, ranks, submodules)
    plain = keras_mpt.PromptEmbedding(length, width, submodules)
    layer.build()
    plain.build()
    count = keras_mpt.multitask_parameter_count(length, width, tasks, ranks, submodules)
    assert (
        count == layer.count_params() == sum(v.size for v in layer.get_peft_state_dict().values())
    )
    full = keras_mpt.full_prompt_parameter_count(length, width, tasks, submodules)
    assert full == tasks * plain.count_params()
