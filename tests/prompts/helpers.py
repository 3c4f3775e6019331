"""What the tests of prompts compare with, and how they look at gradients on any backend."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt

NEEDS_PEFT = "PEFT is the reference here (it comes with the `test` extra)"


def random_layer(num_tasks: int | None = None, **sizes: Any) -> Any:
    """A layer whose weights are all drawn from N(0, 1); without `num_tasks`, one plain prompt."""
    sizes = {"num_virtual_tokens": 4, "token_dim": 6, **sizes}
    if num_tasks is None:
        layer: Any = keras_mpt.PromptEmbedding(**sizes)
    else:
        sizes = {"num_tasks": num_tasks, "num_ranks": 2, **sizes}
        layer = keras_mpt.MultitaskPromptEmbedding(**sizes)
    rng = np.random.default_rng(1)
    layer.set_peft_state_dict(
        {k: rng.normal(size=v.shape) for k, v in layer.named_weights().items()}
    )
    return layer


def numpy_prompts(state: dict[str, np.ndarray], task_ids: Any, indices: Any = None) -> np.ndarray:
    """P ∘ (cols · rows) in float64."""
    names = ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")
    shared, cols, rows = (state[name].astype("float64") for name in names)
    shared = shared[None] if indices is None else shared[indices]
    return shared * np.einsum("blr,brd->bld", cols[task_ids], rows[task_ids])


def peft_module(layer: Any) -> Any:
    """PEFT's own module with the layer's weights."""
    peft = pytest.importorskip("peft", reason=NEEDS_PEFT)
    import torch

    names = ("num_virtual_tokens", "token_dim", "num_transformer_submodules")
    sizes = {name: getattr(layer, name) for name in names}
    if isinstance(layer, keras_mpt.MultitaskPromptEmbedding):
        sizes |= {"num_tasks": layer.num_tasks, "num_ranks": layer.num_ranks}
        config = peft.MultitaskPromptTuningConfig(**sizes)
        module = peft.tuners.MultitaskPromptEmbedding(config, None)
    else:
        module = peft.PromptEmbedding(peft.PromptTuningConfig(**sizes), None)
    state = {name: torch.tensor(value) for name, value in layer.get_peft_state_dict().items()}
    state["embedding.weight"] = state.pop("prompt_embeddings")
    module.load_state_dict(state, strict=True)
    return module


def model_of(layer: Any, indices_length: int | None = None) -> Any:
    """A functional model of the layer: of task ids, of indices, or of both."""
    indices = keras.Input((indices_length,), dtype="int32", name="indices")
    if not isinstance(layer, keras_mpt.MultitaskPromptEmbedding):
        return keras.Model(indices, layer(indices))
    task_ids = keras.Input((), dtype="int32", name="task_ids")
    if indices_length is None:
        return keras.Model(task_ids, layer(task_ids))
    return keras.Model([task_ids, indices], layer(task_ids, indices))


def step(model: Any, inputs: Any, cotangent: Any) -> Any:
    """A function without arguments: the gradients of sum(output · cotangent) by weight name."""
    cotangent = ops.convert_to_tensor(cotangent, "float32")
    names = [v.name for v in model.trainable_variables]

    def loss(outputs: Any) -> Any:
        return ops.sum(ops.cast(outputs, "float32") * cotangent)

    def with_tensorflow() -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss(model(inputs))
        return tape.gradient(value, [v.value for v in model.trainable_variables])

    def with_jax() -> Any:
        import jax

        fixed = [v.value for v in model.non_trainable_variables]

        def loss_of(trained: Any) -> Any:
            return loss(model.stateless_call(trained, fixed, inputs)[0])

        return jax.grad(loss_of)([v.value for v in model.trainable_variables])

    def with_torch() -> Any:
        model.zero_grad()
        loss(model(inputs)).backward()
        return [v.value.grad for v in model.trainable_variables]

    run = {"tensorflow": with_tensorflow, "jax": with_jax, "torch": with_torch}
    chosen = run[keras.backend.backend()]
    return lambda: dict(zip(names, chosen(), strict=True))


def gradients(model: Any, inputs: Any, cotangent: Any) -> dict[str, np.ndarray]:
    """The gradients of sum(output · cotangent), as arrays by weight name."""
    inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    found = step(model, inputs, cotangent)()
    return {name: ops.convert_to_numpy(gradient) for name, gradient in found.items()}


def numpy_adam(
    weights: dict[str, np.ndarray], batches: list[Any], gradients_of: Any, rate: float
) -> dict[str, np.ndarray]:
    """Adam (Kingma and Ba 2015, the form before their section 2.1's end) in float64."""
    weights = {k: v.astype("float64") for k, v in weights.items()}
    first = {k: np.zeros_like(v) for k, v in weights.items()}
    second = {k: np.zeros_like(v) for k, v in weights.items()}
    for t, batch in enumerate(batches, start=1):
        step_size = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        for name, gradient in gradients_of(weights, *batch).items():
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            weights[name] -= step_size * first[name] / (np.sqrt(second[name]) + 1e-7)
    return weights
