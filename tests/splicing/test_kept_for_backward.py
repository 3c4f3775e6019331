"""What a step keeps for the way back, and computes on it: what the layers after the prompt need.

What is kept can be seen on PyTorch; on TensorFlow and JAX the products of matrices are counted.
"""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.fitting.steps import on_checked_data
from keras_mpt.splicing.cut import cut
from tests import tiny
from tests.marks import IS_EAGER, only_torch

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


def prompted(kind):
    """A model, and inputs of it."""
    backbone = tiny.backbone(kind, dropout=0.0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=LENGTH, num_tasks=2, num_transformer_submodules=1
    )
    x = {**tiny.inputs(backbone, ROWS, TOKENS), "task_ids": np.array([0, 1, 1, 0])}
    return keras_mpt.prompt_tune(backbone, config), x


def bare(backbone):
    """The backbone after its embeddings, and as many embeddings as a prompt and a text are.

    Returns:
        A function of the first token input's embeddings, and these.
    """
    graph, inputs, embedded = cut(backbone), tiny.inputs(backbone, ROWS, TOKENS), []
    for i, token_input in enumerate(graph.token_inputs):
        extra = LENGTH if i == 0 else 0
        values = np.random.default_rng(0).normal(size=(ROWS, TOKENS + extra, tiny.WIDTH))
        embedded.append(ops.convert_to_tensor(values, "float32"))
        for name in (token_input.mask_name, *token_input.other_names):
            inputs[name] = np.pad(inputs[name], [(0, 0), (0, extra)], constant_values=1)
    plain = [ops.convert_to_tensor(inputs[name]) for name in graph.plain_names]
    return lambda first: graph.rest([first, *embedded[1:], *plain], training=True), embedded[0]


@only_torch
@pytest.mark.parametrize("kind", ["bert", "roberta", "t5"])
def test_a_splice_keeps_what_the_backbone_keeps_of_as_many_embeddings(kind):
    model, x = prompted(kind)
    backbone = model.backbone
    found, outputs = kept_bytes(backbone, lambda: model(x, training=True))
    run, embedded = bare(backbone)
    embedded.requires_grad_()
    least, _ = kept_bytes(backbone, lambda: run(embedded))
    # P ∘ (cols · rows): each factor of the two products, and ids and masks beside them.
    of_prompt = 4 * 3 * ROWS * LENGTH * tiny.WIDTH + 8 * ROWS * 2 * (TOKENS + LENGTH)
    assert 0 < found - least <= of_prompt

    flat = outputs.values() if isinstance(outputs, dict) else [outputs]
    sum(output.sum() for output in flat).backward()
    assert all(v.value.grad is None for v in backbone.weights)
    assert all(v.value.grad is not None for v in model.trainable_variables)


def products(run, variables):
    """How many products of matrices the gradients of a function of nothing take, forward and back.

    Args:
        run: the function, which gives a nest of tensors.
        variables: list of Keras variables to have gradients.
    """

    def total():
        return sum(ops.sum(output) for output in keras.tree.flatten(run()))

    if keras.backend.backend() == "tensorflow":
        return _products_of_tensorflow(total, [v.value for v in variables])
    import jax

    def of_values(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return total()

    return _products_of_jaxpr(jax.make_jaxpr(jax.grad(of_values))([v.value for v in variables]))


def _products_of_tensorflow(total, sources):
    import tensorflow as tf

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            loss = total()
        return tape.gradient(loss, sources)

    graph = gradients.get_concrete_function().graph
    # What leads to no gradient is in the graph, and does not run.
    outputs = [tensor.op.name for tensor in graph.outputs]
    run = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), outputs)
    return sum("MatMul" in node.op or node.op == "Einsum" for node in run.node)


def _products_of_jaxpr(jaxpr):
    inner = [
        value
        for equation in jaxpr.eqns
        for values in equation.params.values()
        for value in (values if isinstance(values, (tuple, list)) else [values])
        if hasattr(value, "eqns")
    ]
    own = sum(equation.primitive.name == "dot_general" for equation in jaxpr.eqns)
    return own + sum(map(_products_of_jaxpr, inner))


@pytest.mark.skipif(IS_EAGER, reason="on PyTorch what is kept is looked at")
@pytest.mark.parametrize("kind", ["bert", "roberta", "t5"])
def test_a_step_multiplies_what_the_backbone_multiplies_of_as_many_embeddings(kind):
    """No frozen weight, and no embedding of a user's token, has a gradient."""
    model, x = prompted(kind)
    x = {name: ops.convert_to_tensor(value) for name, value in x.items()}

    def ours():
        with on_checked_data(model):
            return model(x, training=True)

    run, embedded = bare(model.backbone)
    first = keras.Variable(embedded)
    least = products(lambda: run(first.value), [first])
    assert least > 20
    # P ∘ (cols · rows): once there, and once back to either factor.
    assert products(ours, model.trainable_variables) == least + 3
