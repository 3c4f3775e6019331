"""A signature from text to labels, with the preprocessor inside; of text classifiers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mpt.types import Tensor


def check_text_to_labels(model: Any, format: str) -> None:
    """Refuses models that cannot take text in TensorFlow's graph.

    Raises:
        ValueError: another format or backend, another kind of model, or one without a preprocessor.
    """
    backend = keras.backend.backend()
    if format != "tf_saved_model" or backend != "tensorflow":
        raise ValueError(
            "`text_to_labels` should be False but for format='tf_saved_model' on the tensorflow "
            "backend: no other graph can hold a tokenizer. Received: text_to_labels=True with "
            f"format={format!r} on the {backend} backend"
        )
    if not model.head.has_classes or model.targets.several_per_row:
        raise ValueError(
            "`text_to_labels` should be False for a model that does not give each text one class. "
            f"Received: text_to_labels=True for a {type(model).__name__}"
        )
    if model.preprocessor is None:
        raise ValueError(
            "`preprocessor` should be given to the model for text_to_labels=True. Received: "
            "preprocessor=None"
        )


def text_to_labels(model: Any, serve: Any) -> Any:
    """A traced function of texts and task ids.

    Args:
        model: a text classifier.
        serve: the traced function from tokens to logits.

    Returns:
        A `tf.function` of a dict of "text", (B,) string, and, with tasks, "task_ids", (B,) int32.
        It gives a dict of "labels", (B,) string: the name of the likeliest class of the row's own
        task, or its number where it has no name, and "" for the id of no task; "classes", (B,)
        int32, −1 for such an id; and "probabilities", (B, C) float32, NaN for it.
    """
    import tensorflow as tf

    names, has_class = _names_of_classes(model)
    specs = {"text": tf.TensorSpec((None,), tf.string, name="text")}
    if model.model_inputs.has_tasks:
        specs["task_ids"] = tf.TensorSpec((None,), tf.int32, name="task_ids")

    def labelled(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        given = _tokens(model, inputs["text"])
        tasks = tf.zeros_like(inputs["text"], tf.int32)
        if "task_ids" in inputs:
            given["task_ids"] = tasks = inputs["task_ids"]
        logits = serve(given)["logits"]
        is_known = (tasks >= 0) & (tasks < len(names))
        tasks = tf.where(is_known, tasks, 0)
        logits = tf.where(tf.gather(has_class, tasks), logits, -np.inf)
        best = tf.argmax(logits, axis=-1, output_type=tf.int32)
        named = tf.gather(tf.gather(names, tasks), best, batch_dims=1)
        return {
            "labels": tf.where(is_known, named, ""),
            "classes": tf.where(is_known, best, -1),
            "probabilities": tf.where(is_known[:, None], tf.nn.softmax(logits), np.nan),
        }

    function = tf.function(labelled, input_signature=[specs], autograph=False)
    function.get_concrete_function()
    return function


def _tokens(model: Any, text: Tensor) -> dict[str, Tensor]:
    """The model's inputs, int32, of texts in the graph."""
    import tensorflow as tf

    made = model.preprocessor(text)
    return {
        name: tf.cast(made[name], tf.int32) for name in model.model_inputs.names if name in made
    }


def _names_of_classes(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Each task's classes by name, (T, C) strings, and which of the C it has."""
    inputs, names = model.model_inputs, model.config.label_names
    tasks = inputs.task_names or [None]
    counts = model.head.classes_of_rows(
        np.arange(len(tasks)) if inputs.has_tasks else None, len(tasks)
    )
    by_task = [(names or {}).get(task) if inputs.has_tasks else names for task in tasks]
    width = int(max(counts))
    table = [
        [str(k) if own is None or k >= len(own) else own[k] for k in range(width)]
        for own in by_task
    ]
    return np.asarray(table, object), np.arange(width) < np.asarray(counts)[:, None]
