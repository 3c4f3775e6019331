"""A TensorFlow SavedModel, of a model on TensorFlow or JAX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from keras_mpt.exporting.signature import Signature
from keras_mpt.exporting.tensorflow_function import tensorflow_function
from keras_mpt.exporting.text_to_labels import text_to_labels


def write_saved_model(
    model: Any, signature: Signature, path: Path, with_text: bool = False
) -> None:
    """Writes a SavedModel with the signatures "serve" and, the same, "serving_default".

    Args:
        model: a prompt-tuned model.
        signature: its signature.
        path: a folder that is not there yet.
        with_text: bool. Whether it has the signature "text_to_labels" too. Defaults to `False`.
    """
    archive = keras.export.ExportArchive()
    serve = tensorflow_function(model, signature)
    archive.add_endpoint("serve", serve)
    if with_text:
        archive.add_endpoint("text_to_labels", text_to_labels(model, serve))
    archive.write_out(str(path), verbose=False)
