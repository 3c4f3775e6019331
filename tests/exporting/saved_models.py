"""Opens SavedModels in a process without Keras: `python -m tests.exporting.saved_models FILE…`.

Each FILE is an `.npz` of a batch, beside a folder "model"; the outputs go to another beside it. The
signature can be another than "serving_default", by the name that the file begins with.
"""

import sys
from pathlib import Path

import numpy as np


def run(file: Path) -> None:
    """Runs one batch."""
    import tensorflow as tf

    name = file.stem.split("-")[0]
    if name == "text_to_labels":
        import tensorflow_text  # noqa: F401 (its operations are in the graph)
    signature = tf.saved_model.load(str(file.parent / "model")).signatures[name]
    with np.load(file) as batch:
        outputs = signature(**{key: tf.constant(value) for key, value in batch.items()})
    found = {key: value.numpy() for key, value in outputs.items()}
    found = {k: v.astype("S").astype("U") if v.dtype == object else v for k, v in found.items()}
    np.savez(file.with_suffix(".out.npz"), **found)


if __name__ == "__main__":
    # TensorFlow imports Keras by itself where it finds it, and tensorflow_text cannot do without;
    # of `None` nothing is found.
    with_text = any(Path(given).name.startswith("text_to_labels") for given in sys.argv[1:])
    absent = ("keras_hub", "keras_mpt") if with_text else ("keras", "keras_hub", "keras_mpt")
    sys.modules |= dict.fromkeys(absent)
    for given in sys.argv[1:]:
        run(Path(given))
