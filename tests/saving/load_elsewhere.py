"""Run in a fresh process by `test_saving.py`: loads models, writes what they hold and predict.

`python -m tests.saving.load_elsewhere FOLDER NAME …` with KERAS_BACKEND set. Without a compiled
state: an optimizer's is only good on the backend that saved it.
"""

import sys
from pathlib import Path

import keras
import numpy as np

# The model's classes are found by importing the library, as a user would.
import keras_mpt  # noqa: F401


def main(folder: Path, name: str) -> None:
    """Writes `NAME-BACKEND.npz`: every variable, and the predictions."""
    model = keras.saving.load_model(folder / f"{name}.keras", compile=False)
    with np.load(folder / f"{name}-inputs.npz") as file:
        inputs = dict(file)
    # By number: paths in keras-hub's T5 are not unique, and some count a process's layers.
    values = {f"variable:{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.weights)}
    trained = [any(v is t for t in model.trainable_variables) for v in model.weights]
    outputs = keras.tree.flatten(model.predict(inputs, verbose=0))
    values |= {f"output:{i}": output for i, output in enumerate(outputs)}
    target = folder / f"{name}-{keras.backend.backend()}.npz"
    np.savez(target, trained=np.array(trained), **values)


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        main(Path(sys.argv[1]), argument)
