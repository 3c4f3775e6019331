# ruff: noqa: E402 (TensorFlow must be hidden before anything is imported)
"""Run by `make no-tensorflow`: the whole job in a process where TensorFlow cannot be imported.

It is a script and not a pytest module, since pytest's own plugins may import TensorFlow first.
"""

import sys
import tempfile
from pathlib import Path

# `None` makes every import of it an ImportError, as on a machine that does not have it.
for name in ("tensorflow", "tensorflow_text"):
    sys.modules[name] = None  # type: ignore[assignment]

import keras
import numpy as np

import keras_mpt
from tests import tiny
from tests.decoding.language_models import causal_preprocessor


def main() -> None:
    """Trains, predicts, saves and loads."""
    assert keras.backend.backend() != "tensorflow", "set KERAS_BACKEND to jax or torch"
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=3, num_tasks=2, prompt_tuning_init="SAMPLE_VOCAB"
    )
    backbone = tiny.backbone("bert")
    model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
    x = {**tiny.inputs(backbone, rows=8), "task_ids": [0, 1] * 4}
    y = np.array([1, 2] * 4)
    losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0], losses
    expected = model.predict(x, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.keras")
        loaded = keras.saving.load_model(Path(folder) / "model.keras")
        np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-6)
        model.save_adapter(Path(folder) / "adapter")
        loaded = keras_mpt.load_adapter(backbone, Path(folder) / "adapter")
        np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-6)
    datasets = {"a": ({k: v[::2] for k, v in tiny.inputs(backbone, rows=8).items()}, y[::2])}
    datasets["b"] = ({k: v[1::2] for k, v in tiny.inputs(backbone, rows=8).items()}, y[1::2])
    model.fit(keras_mpt.TaskMix(datasets, batch_size=4), verbose=0)
    language_model()
    assert not any(m.startswith("tensorflow.") for m in sys.modules)
    print(f"works without TensorFlow on {keras.backend.backend()}")


def language_model() -> None:
    """Trains on responses and on label words, in memory and mixed, and answers."""
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, num_tasks=2, task_names=["words", "free"],
        label_words={"words": ["a", "b"]},
    )  # fmt: skip
    preprocessor = causal_preprocessor(16)
    model = keras_mpt.prompt_tune(tiny.backbone("gpt2"), config, preprocessor=preprocessor)
    free = {"prompts": ["cd", "h"] * 2, "responses": ["gh", ""] * 2}
    datasets = {"words": ({"prompts": ["ab", "d", "c"]}, np.array([0, 1, 1])), "free": (free, None)}
    mix = keras_mpt.TaskMix(datasets, batch_size=3)
    model.fit(mix, verbose=0, validation_data=keras_mpt.stack_tasks(datasets))
    assert model.score({**free, "task_ids": "free"}).shape == (4,)
    assert set(model.predict_labels({"prompts": ["d", "h"]}, task_ids="words")) <= {"a", "b"}


if __name__ == "__main__":
    main()
