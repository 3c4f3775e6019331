"""OpenVINO's two files, of a model on TensorFlow or PyTorch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras

from keras_mpt.exporting.onnx_file import write_onnx
from keras_mpt.exporting.saved_model import write_saved_model
from keras_mpt.exporting.signature import Signature


def write_openvino(model: Any, signature: Signature, path: Path) -> None:
    """Writes an `.xml` file, and a `.bin` file with the weights beside it.

    From a SavedModel on TensorFlow and an ONNX file on PyTorch: of the other ways, those from
    `tf2onnx` and from `torch.export` lose what is open.

    Args:
        model: a prompt-tuned model.
        signature: its signature.
        path: where to.
    """
    import openvino

    is_torch = keras.backend.backend() == "torch"
    write = write_onnx if is_torch else write_saved_model
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as folder:
        between = Path(folder) / ("model.onnx" if is_torch else "model")
        write(model, signature, between)
        made = openvino.convert_model(str(between))
        openvino.save_model(made, str(path), compress_to_fp16=False)
