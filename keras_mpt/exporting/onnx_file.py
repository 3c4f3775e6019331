"""An ONNX file, of a model on TensorFlow or PyTorch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_mpt.exporting.plain_call import output_names
from keras_mpt.exporting.signature import Signature
from keras_mpt.exporting.tensorflow_function import tensorflow_function
from keras_mpt.exporting.torch_program import torch_program


def write_onnx(model: Any, signature: Signature, path: Path) -> None:
    """Writes an `.onnx` file; weights of more than 2 GB stand in a file beside it.

    Args:
        model: a prompt-tuned model.
        signature: its signature.
        path: where to.
    """
    if keras.backend.backend() == "torch":
        _from_torch(model, signature, path)
    else:
        _from_tensorflow(model, signature, path)


def _from_torch(model: Any, signature: Signature, path: Path) -> None:
    import torch

    program = torch_program(model, signature)
    _drop_squeezes(program)
    with _quiet("torch.onnx"):
        made = torch.onnx.export(
            program,
            (),
            input_names=signature.names,
            output_names=output_names(model),
            verbose=False,
        )
    made.save(path)


def _drop_squeezes(program: Any) -> None:
    """Takes out each `squeeze` of an open dimension.

    `keras.ops.take` has one, before a reshape. PyTorch leaves a dimension that is not 1 as it is;
    ONNX refuses it.
    """
    import torch

    graph = program.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is torch.ops.aten.squeeze.dim:
            of, dim = node.args
            if not isinstance(of.meta["val"].shape[dim], int):
                node.replace_all_uses_with(of)
                graph.erase_node(node)
    program.graph_module.recompile()


def _from_tensorflow(model: Any, signature: Signature, path: Path) -> None:
    import onnx
    import tensorflow as tf
    import tf2onnx

    by_dict = tensorflow_function(model, signature)
    specs = by_dict.input_signature[0]

    # tf2onnx names the inputs of a flat signature, not those of a dict.
    def by_position(*inputs: Any) -> Any:
        return by_dict(dict(zip(signature.names, inputs, strict=True)))

    flat = [specs[name] for name in signature.names]
    function = tf.function(by_position, input_signature=flat, autograph=False)
    with _quiet("tf2onnx"):
        made, _ = tf2onnx.convert.from_function(
            function, flat, custom_op_handlers={"Erfc": (_erfc, [])}
        )
    _give_constants(made.graph, function.get_concrete_function())
    onnx.save(made, path)


def _give_constants(graph: Any, function: Any) -> None:
    """Puts numbers that a layer keeps into the file: tf2onnx makes inputs of them."""
    from onnx import numpy_helper

    kept = function.captured_inputs
    values = dict(zip([t.name for t in function.inputs[-len(kept) :]], kept, strict=True))
    for given in [given for given in graph.input if given.name in values]:
        graph.initializer.append(numpy_helper.from_array(values[given.name].numpy(), given.name))
        graph.input.remove(given)


def _erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """1 − erf(x), as ONNX has no `Erfc`: that of a GELU."""
    import numpy as np

    node.type = "Erf"
    (output,) = node.output
    one = context.make_const(f"{name}_one", np.array(1, "float32")).output[0]
    after = context.find_output_consumers(output)
    minus = context.make_node("Sub", [one, output], name=f"{name}_sub")
    for consumer in after:
        context.replace_input(consumer, output, minus.output[0])


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Leaves a library's notices out: what goes wrong, it raises."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
