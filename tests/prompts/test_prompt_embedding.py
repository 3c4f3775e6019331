"""The plain prompt, and what both kinds of prompt layer have in common."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.prompts.helpers import gradients, model_of, numpy_adam, peft_module, random_layer

# Repeated, out of order, and not all of them.
INDICES = np.array([[3, 0, 0, 2], [1, 1, 1, 1], [0, 1, 2, 3]])
# The kinds of layer, as arguments of `random_layer`.
KINDS = {"plain": {}, "multitask": {"num_tasks": 4}}


def inputs_of(layer):
    """Three rows for either kind."""
    return INDICES if type(layer) is keras_mpt.PromptEmbedding else np.array([2, 0, 2])


def test_gives_the_rows_asked_for():
    layer = keras_mpt.PromptEmbedding(num_virtual_tokens=3, token_dim=2)
    layer.set_peft_state_dict({"prompt_embeddings": np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])})
    found = ops.convert_to_numpy(layer(ops.convert_to_tensor([[2, 0], [1, 1]])))
    np.testing.assert_array_equal(found, [[[5, 6], [1, 2]], [[3, 4], [3, 4]]])


@pytest.mark.parametrize("submodules", [1, 2])
def test_indices_are_all_rows_in_order(submodules):
    layer = random_layer(num_transformer_submodules=submodules)
    prompt = layer.get_peft_state_dict()["prompt_embeddings"]
    assert prompt.shape == (4 * submodules, 6)
    found = ops.convert_to_numpy(layer(layer.indices(2)))
    np.testing.assert_array_equal(found, np.stack([prompt, prompt]))


def test_equals_peft_forward_and_backward():
    layer = random_layer()
    module = peft_module(layer)
    import torch

    cotangent = np.random.default_rng(2).normal(size=(3, 4, 6)).astype("float32")
    expected = module(torch.tensor(INDICES))
    (expected * torch.tensor(cotangent)).sum().backward()
    model = model_of(layer, indices_length=4)
    found = model.predict(INDICES, verbose=0)
    np.testing.assert_array_equal(found, expected.detach().numpy())
    gradient = gradients(model, INDICES.astype("int32"), cotangent)["prompt_embeddings"]
    np.testing.assert_allclose(gradient, module.embedding.weight.grad.numpy(), atol=1e-6)


def test_adam_through_fit_with_repeated_indices():
    """Rows that a batch leaves out, or takes twice, get the same update on every backend."""
    layer = random_layer()
    start = layer.get_peft_state_dict()
    rng = np.random.default_rng(3)
    x = np.array([[0, 0, 1], [0, 2, 2], [3, 3, 3], [0, 1, 0]])
    y = rng.normal(size=(4, 3, 6)).astype("float32")

    def gradients_of(weights, indices, target):
        gradient = np.zeros_like(weights["prompt_embeddings"])
        error = weights["prompt_embeddings"][indices] - target
        np.add.at(gradient, indices, 2 * error / error.size)
        return {"prompt_embeddings": gradient}

    model = model_of(layer, indices_length=3)
    model.compile(keras.optimizers.Adam(0.01), loss="mse")
    model.fit(x, y, batch_size=1, epochs=3, shuffle=False, verbose=0)
    batches = [(x[i : i + 1], y[i : i + 1]) for i in range(4)] * 3
    expected = numpy_adam(start, batches, gradients_of, 0.01)
    found = layer.get_peft_state_dict()["prompt_embeddings"]
    assert np.abs(found - start["prompt_embeddings"]).max() > 0.05
    np.testing.assert_allclose(found, expected["prompt_embeddings"], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "roundoff"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_mixed_precision_keeps_float32_variables(kind, name, roundoff):
    exact = random_layer(**KINDS[kind])
    layer = random_layer(**KINDS[kind], dtype=f"mixed_{name}")
    assert {keras.backend.standardize_dtype(v.dtype) for v in layer.weights} == {"float32"}
    x = ops.convert_to_tensor(inputs_of(layer), "int32")
    found = layer(x)
    assert keras.backend.standardize_dtype(found.dtype) == name
    # Up to five roundings: three casts, the sum of two products, and its product with P. The sum
    # may cancel, so the error is measured against the largest value.
    wanted = ops.convert_to_numpy(exact(x))
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=5 * roundoff * np.abs(wanted).max())
    assert np.abs(found - wanted).max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_config_builds_the_same_layer(kind):
    layer = random_layer(
        **KINDS[kind],
        num_transformer_submodules=2,
        embeddings_initializer=keras.initializers.Constant(0.5),
        name="prompt",
        dtype="mixed_bfloat16",
    )
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.dtype_policy.name == "mixed_bfloat16"
    shapes = {name: v.shape for name, v in again.named_weights().items()}
    assert shapes == {name: v.shape for name, v in layer.named_weights().items()}
    np.testing.assert_array_equal(
        again.get_peft_state_dict()["prompt_embeddings"], np.full((8, 6), 0.5)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_keras_file_round_trip(kind, tmp_path):
    layer = random_layer(**KINDS[kind])
    model, x = model_of(layer, 4 if kind == "plain" else None), inputs_of(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    for old, new in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(new), ops.convert_to_numpy(old))


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_is_a_float32_copy(kind):
    layer = random_layer(**KINDS[kind], dtype="bfloat16")
    before = layer.get_peft_state_dict()
    kept = {name: value.copy() for name, value in before.items()}
    for variable in layer.weights:
        variable.assign(variable + 1)
    for name, value in before.items():
        assert value.dtype == "float32"
        np.testing.assert_array_equal(value, kept[name])


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "4", None, True])
@pytest.mark.parametrize("name", ["num_virtual_tokens", "token_dim", "num_transformer_submodules"])
def test_wrong_sizes(name, wrong):
    sizes = {"num_virtual_tokens": 4, "token_dim": 8, name: wrong}
    message = f"`{name}` should be a positive integer. Received: {name}={wrong!r}"
    with pytest.raises(ValueError, match=message):
        keras_mpt.PromptEmbedding(**sizes)
