"""A TensorFlow SavedModel, of a model on TensorFlow or JAX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from keras_mpt.exporting.signature import Signature
from keras_mpt.exporting.tensorflow_function import tensorflow_function


def write_saved_model(model: Any, signature: Signature, path: Path) -> None:
    """Writes a SavedModel with the signatures "serve" and, the same, "serving_default".

    Args:
        model: a prompt-tuned model.
        signature: its signature.
        path: a folder that is not there yet.
    """
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", tensorflow_function(model, signature))
    archive.write_out(str(path), verbose=False)
