"""`export`, as a method of a prompt-tuned model."""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from keras_mpt._keras import sublayers
from keras_mpt.checks import check_choice, check_flag
from keras_mpt.exporting.formats import BACKENDS, FORMATS, Format
from keras_mpt.exporting.litert import write_litert
from keras_mpt.exporting.onnx_file import write_onnx
from keras_mpt.exporting.openvino_file import write_openvino
from keras_mpt.exporting.place import checked_place
from keras_mpt.exporting.saved_model import write_saved_model
from keras_mpt.exporting.signature import Signature, signature_of
from keras_mpt.exporting.text_to_labels import check_text_to_labels
from keras_mpt.exporting.torch_program import write_torch
from keras_mpt.files.exchange import exchanging
from keras_mpt.fitting.alone import alone

_WRITERS: dict[str, Callable[[Any, Signature, Path], None]] = {
    "tf_saved_model": write_saved_model,
    "onnx": write_onnx,
    "openvino": write_openvino,
    "litert": write_litert,
    "torch": write_torch,
}


@alone
def export(
    self: Any,
    filepath: str | os.PathLike[str],
    format: str = "tf_saved_model",
    verbose: bool | None = None,
    input_signature: Any = None,
    *,
    batch_size: int | None = None,
    sequence_length: int | None = None,
    overwrite: bool = False,
    text_to_labels: bool = False,
) -> None:
    """Writes the model as an artifact that its runtime opens without Keras and without keras_mpt.

    The artifact is a function from the model's inputs by name, each int32 (also the mask and
    `task_ids`), to outputs by name: "logits", or a `PromptTunedBackbone`'s own names, with a lone
    one "sequence_output". It computes what `predict` does, for rows of several tasks in one batch.
    Its inputs are not checked, but a row whose task id is that of no task gives NaN, and no other
    row does.

    The number of rows and of tokens stay open where the format can, up to the backbone's positions.
    `docs/serving.md` says what each backend can write, and how each runtime opens it.

    Args:
        filepath: string or path. The folder of a SavedModel, which is made; for the others a file,
            which ends in ".onnx", ".xml" ("openvino", which puts a ".bin" beside it), ".tflite"
            ("litert") or ".pt2" ("torch").
        format: `"tf_saved_model"`, `"onnx"`, `"openvino"`, `"litert"` or `"torch"`. Defaults to
            `"tf_saved_model"`.
        verbose: bool. Whether to print what was written; `None` does. Defaults to `None`.
        input_signature: dict of each input's name to its shape, or to a `keras.InputSpec`, to fix
            sizes one by one; `None` in a shape leaves a size open. Defaults to `None`.
        batch_size: int. The number of rows, to fix it. Defaults to `None`.
        sequence_length: int. The number of tokens, to fix it; an encoder-decoder's two get the
            same. Defaults to `None`.
        overwrite: bool. Whether to replace an older export. What was there stays as it is until the
            new one is whole. Defaults to `False`.
        text_to_labels: bool. Whether a SavedModel of a text classifier on TensorFlow gets a second
            signature, "text_to_labels", with the preprocessor inside: from "text", (B,) strings,
            and "task_ids" to "labels", "classes" and "probabilities". Whoever opens it imports
            tensorflow_text first. Defaults to `False`.

    Raises:
        ValueError: an unknown format, or one that the backend cannot write; another path than the
            format wants, or one that is there; sizes that do not fit; a quantized backbone, or one
            of another dtype than the runtime computes in.
        ImportError: a package that is missing.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
        format, name = "tf_saved_model", "model"
        if keras.backend.backend() == "torch":
            format, name = "torch", "model.pt2"
        model.export(tmp_path / name, format, verbose=False)
        assert (tmp_path / name).exists()
        ```

    Source: Keras `Model.export`, whose order of arguments this has.
    """
    check_choice("format", format, list(FORMATS))
    made = FORMATS[format]
    show = verbose is None or check_flag("verbose", verbose)
    place = checked_place(filepath, made, check_flag("overwrite", overwrite))
    _check_backend(made)
    _check_weights(self, made)
    signature = signature_of(self.model_inputs, input_signature, batch_size, sequence_length)
    _check_fixed(signature, made)
    write = _WRITERS[format]
    if check_flag("text_to_labels", text_to_labels):
        check_text_to_labels(self, format)
        write = functools.partial(write_saved_model, with_text=True)
    with exchanging(place.parent) as folder, warnings.catch_warnings():
        # What the frameworks say to each other while they trace.
        warnings.simplefilter("ignore")
        write(self, signature, folder / place.name)
    if show:
        print(f"Saved {str(filepath)!r} for {made.runtime}: {signature.described()}")


def _check_backend(format: Format) -> None:
    """Refuses what the backend cannot write, or could with another package."""
    backend = keras.backend.backend()
    if backend not in format.packages:
        others = " or ".join(repr(b) for b in BACKENDS if b in format.packages)
        raise ValueError(
            f"`format` should be another on the {backend} backend: {format.reasons[backend]}. Save "
            f"the model as .keras and export it in a process with KERAS_BACKEND={others}. "
            f"Received: format={format.name!r}"
        )
    missing = format.missing(backend)
    if missing:
        raise ImportError(
            f"`format` should be one whose packages are installed: pip install "
            f"'keras-mpt[export]'. Received: format={format.name!r} without {missing}"
        )


def _check_weights(model: Any, format: Format) -> None:
    """Refuses weights that the runtime does not compute with, or that do not fit the file."""
    policies = [layer.dtype_policy for layer in sublayers(model)]
    modes = {str(p.quantization_mode) for p in policies if getattr(p, "quantization_mode", None)}
    if modes:
        raise ValueError(
            "`backbone` should not be quantized to be exported: quantize the artifact with its "
            f"runtime's own tool. Received: a backbone quantized to {sorted(modes)}"
        )
    dtypes = {p.compute_dtype for p in policies} | {w.dtype for w in model.weights}
    others = sorted({d for d in dtypes if "float" in d} - {"float32"})
    if others and format.only_float32:
        raise ValueError(
            f"`backbone` should be opened with dtype='float32' for format={format.name!r}. "
            f"Received: a backbone with {others}"
        )
    most = format.most_bytes.get(keras.backend.backend())
    size = sum(4 * math.prod(w.shape) for w in model.weights)
    if most is not None and size >= most:
        raise ValueError(
            f"`format` should be another on the {keras.backend.backend()} backend for weights of "
            f"{most} bytes and more. Received: format={format.name!r} of a model with {size} bytes"
        )


def _check_fixed(signature: Signature, format: Format) -> None:
    """Refuses dimensions that are left open where none can be."""
    backend = keras.backend.backend()
    if backend in format.is_fixed and signature.open:
        raise ValueError(
            f"`batch_size` and `sequence_length` should be given for format={format.name!r} on the "
            f"{backend} backend, or `input_signature` without open dimensions. Received: "
            f"{signature.described()}"
        )
