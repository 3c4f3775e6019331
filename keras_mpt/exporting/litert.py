"""A LiteRT file (TensorFlow Lite's), of a model on TensorFlow or JAX."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from keras_mpt.exporting.saved_model import write_saved_model
from keras_mpt.exporting.signature import Signature


def write_litert(model: Any, signature: Signature, path: Path) -> None:
    """Writes a `.tflite` file with the signature "serving_default".

    It has LiteRT's own operations alone, no TensorFlow ones, which its runtimes lack.

    Args:
        model: a prompt-tuned model.
        signature: its signature.
        path: where to.

    Raises:
        ValueError: a model of which LiteRT cannot leave a dimension open.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory(dir=path.parent.parent) as folder:
        between = str(Path(folder) / "model")
        write_saved_model(model, signature, Path(between))
        converter = tf.lite.TFLiteConverter.from_saved_model(
            between, signature_keys=["serving_default"]
        )
        try:
            made = converter.convert()
        except Exception as error:  # The converter has many, with no base of their own.
            raise ValueError(
                f"{_advice(model, signature)} Received: {signature.described()}"
            ) from error
    path.write_bytes(made)


def _advice(model: Any, signature: Signature) -> str:
    """What to do about a model that LiteRT does not take."""
    name = type(model.backbone).__name__
    if signature.open:
        return (
            "`sequence_length` should be given where LiteRT cannot leave the lengths of a "
            f"backbone's masks open, as those of {name}; with `batch_size` all sizes are fixed."
        )
    return f"`format` should be another than 'litert', which lacks an operation of {name}."
