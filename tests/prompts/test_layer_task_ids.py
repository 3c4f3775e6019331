"""Task ids given to the layer: what it takes, what it refuses, and what a batch costs."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.prompts.helpers import model_of, numpy_prompts, random_layer, step


class Unchecked(keras.layers.Layer):
    """Calls the layer past its check of the ids, as a compiled graph does on any backend."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def call(self, task_ids: Any) -> Any:
        return self.inner.call(task_ids)

    def compute_output_shape(self, shape: Any) -> Any:
        return self.inner.compute_output_shape(shape)


@pytest.mark.parametrize(
    ("task_ids", "same_as"),
    [
        (2, [2]),
        (np.int64(1), [1]),
        ([2, 0, 2], [2, 0, 2]),
        ((1, 1), [1, 1]),
        (np.array([2, 1], "int64"), [2, 1]),
        (np.array([2, 1], "uint8"), [2, 1]),
        (np.array(0), [0]),
    ],
)
def test_accepted(task_ids, same_as):
    layer = random_layer(num_tasks=4)
    wanted = numpy_prompts(layer.get_peft_state_dict(), same_as)
    found = ops.convert_to_numpy(layer(task_ids))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_backend_tensors_accepted(dtype):
    layer = random_layer(num_tasks=4)
    wanted = numpy_prompts(layer.get_peft_state_dict(), [2, 0])
    found = ops.convert_to_numpy(layer(ops.convert_to_tensor(np.array([2, 0], dtype))))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    ("task_ids", "message"),
    [
        ([0.0, 1.0], r"`task_ids` should be integers.*float(32|64): \[0.0, 1.0\]"),
        ([0, -1], r"`task_ids` should lie in \[0, 4\): this model has 4 tasks.*\[-1\]"),
        ([4, 0, 7, 4], r"`task_ids` should lie in \[0, 4\).*\[4, 7\]"),
        ([True, False], r"`task_ids` should be integers.*bool"),
        ([[0, 1], [1, 2]], r"`task_ids` should be one id, or have shape.*\(2, 2\)"),
    ],
)
def test_refused(task_ids, message, as_tensor):
    given = ops.convert_to_tensor(task_ids) if as_tensor else task_ids
    with pytest.raises(ValueError, match=message):
        random_layer(num_tasks=4)(given)


def test_none_refused():
    with pytest.raises(ValueError, match="`task_ids` should be given.*4 tasks.*task_ids=None"):
        random_layer(num_tasks=4)(None)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [((None,), "float32", "should be integers.*float32"), ((None, 2), "int32", "should be one id")],
)
def test_refused_while_a_model_is_built(shape, dtype, message):
    with pytest.raises(ValueError, match=f"`task_ids` {message}"):
        random_layer(num_tasks=4)(keras.Input(batch_shape=shape, dtype=dtype))


def test_scalar_input_of_a_model():
    layer = random_layer(num_tasks=4)
    model = keras.Model(scalar := keras.Input(batch_shape=(), dtype="int32"), layer(scalar))
    found = ops.convert_to_numpy(model(ops.convert_to_tensor(1, "int32")))
    wanted = numpy_prompts(layer.get_peft_state_dict(), [1])
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_wrong_ids_inside_a_graph_give_nan_to_their_rows_alone():
    layer = random_layer(num_tasks=4)
    task_ids = np.array([2, 4, 0, -1, 3, 2**31 - 1, -(2**31)], "int32")
    inputs = keras.Input((), dtype="int32")
    model = keras.Model(inputs, Unchecked(layer)(inputs))
    found = model.predict(task_ids, verbose=0)
    right = [0, 2, 4]
    wanted = numpy_prompts(layer.get_peft_state_dict(), task_ids[right])
    np.testing.assert_allclose(found[right], wanted, rtol=1e-6, atol=1e-6)
    assert np.isnan(np.delete(found, right, axis=0)).all()


def test_narrow_ids_with_more_tasks_than_they_can_name():
    """Inside a graph uint8 ids are compared with 300 tasks, which uint8 cannot hold."""
    layer = random_layer(num_tasks=300)
    inputs = keras.Input((), dtype="uint8")
    model = keras.Model(inputs, Unchecked(layer)(inputs))
    found = model.predict(np.array([255, 0], "uint8"), verbose=0)
    wanted = numpy_prompts(layer.get_peft_state_dict(), [255, 0])
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_compiled_model_gives_what_the_eager_layer_gives():
    layer = random_layer(num_tasks=4)
    task_ids = np.array([0, 2, 2, 1], "int32")
    found = model_of(layer).predict(task_ids, verbose=0)
    np.testing.assert_allclose(found, ops.convert_to_numpy(layer(task_ids)), rtol=1e-6, atol=1e-6)


def test_no_step_holds_the_prompts_of_all_tasks():
    """With 1,000 tasks, nothing in a step is larger than a weight, let alone T·L·d."""
    tasks, length, width, ranks = 1000, 20, 32, 2
    layer = keras_mpt.MultitaskPromptEmbedding(length, width, tasks, ranks, task_init="normal")
    task_ids = ops.convert_to_tensor(np.array([999, 0, 999], "int32"))
    cotangent = np.ones((3, length, width), "float32")
    elements = largest_tensor(step(model_of(layer), task_ids, cotangent))
    assert elements == tasks * ranks * width  # The gradient of prefix_task_rows.
    assert elements < tasks * length * width


def largest_tensor(run: Any) -> int:
    """How many elements the largest tensor has that `run` computes on its way."""
    sizes: list[int] = []
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(run).get_concrete_function().graph
        shapes = [t.shape for op in graph.get_operations() for t in op.outputs]
        sizes = [shape.num_elements() for shape in shapes if shape.is_fully_defined()]
    elif keras.backend.backend() == "jax":
        import jax

        def walk(jaxpr: Any) -> None:
            for equation in jaxpr.eqns:
                sizes.extend(v.aval.size for v in equation.outvars)
                for inner in jax.tree.leaves(list(equation.params.values())):
                    if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                        walk(getattr(inner, "jaxpr", inner))

        walk(jax.make_jaxpr(run)().jaxpr)
    else:
        import torch
        from torch.utils._python_dispatch import TorchDispatchMode

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                found = function(*args, **(kwargs or {}))
                tensors = [t for t in keras.tree.flatten(found) if isinstance(t, torch.Tensor)]
                sizes.extend(t.numel() for t in tensors)
                return found

        with Watch():
            run()
    return max(sizes)
