"""Text to tokens by keras-hub's preprocessors, each row as it would be alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.data.texts import Row
from keras_mpt.types import Preprocessor, TargetData, Tensor


def is_symbolic(text: Any) -> bool:
    """Whether text has tensors of `tf.data`, whose values cannot be seen."""
    return any(
        type(part).__module__.startswith("tensorflow") and not hasattr(part, "numpy")
        for part in keras.tree.flatten(text)
    )


def tokens_of(preprocessor: Preprocessor, texts: Mapping[str, list[Row]]) -> Any:
    """What a preprocessor makes of a batch's text.

    Texts and pairs may stand in one batch: each row has the tokens that it has alone.

    Args:
        preprocessor: keras-hub preprocessor.
        texts: dict of rows of text, by name.

    Returns:
        Inputs, or `(x, y, sample_weight)`, as the preprocessor gives them.
    """
    if hasattr(preprocessor, "generate_preprocess"):  # A language model's.
        single = {name: _single(rows, name) for name, rows in texts.items()}
        return preprocessor(x=single if len(single) > 1 else single["text"])
    (rows,) = texts.values()
    is_pair = np.asarray([isinstance(row, tuple) for row in rows])
    made = {kind: _of_one_kind(preprocessor, rows, is_pair == kind) for kind in set(is_pair)}
    if len(made) == 1:
        return made.popitem()[1]

    def together(single: Tensor, pair: Tensor) -> np.ndarray:
        parts = {False: to_numpy(single), True: to_numpy(pair)}
        found = np.empty((len(rows), *parts[True].shape[1:]), parts[True].dtype)
        for kind, part in parts.items():
            found[is_pair == kind] = part
        return found

    return keras.tree.map_structure(together, made[False], made[True])


def tokens_alone(preprocessor: Preprocessor | None, text: str) -> np.ndarray:
    """A text's own tokens, int64 (n,), without start or end tokens and without padding.

    Args:
        preprocessor: keras-hub preprocessor whose tokenizer is asked.
        text: string.
    """
    assert preprocessor is not None
    with _outside_of_graphs():
        return np.asarray(preprocessor.tokenizer(text)).astype("int64").ravel()


def _outside_of_graphs() -> contextlib.AbstractContextManager[Any]:
    """Where tokens have values, also while TensorFlow traces a step that asks for them first."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    scope: contextlib.AbstractContextManager[Any] = tf.init_scope()
    return scope


def both_weights(made: TargetData, given: TargetData) -> TargetData:
    """A preprocessor's weights (B, S) times the user's, (B,) or (B, S)."""
    if made is None or given is None:
        return made if given is None else given
    if isinstance(given, (list, np.ndarray)):
        given = np.asarray(given)
        made = to_numpy(made) if keras.ops.is_tensor(made) else made
        if given.shape[:1] != made.shape[:1]:
            raise ValueError(
                f"`sample_weight` should have one weight per row, {len(made)} of them. Received: "
                f"sample_weight of shape {given.shape}"
            )
        if given.shape != made.shape[: given.ndim]:
            raise ValueError(
                f"`sample_weight` should have one weight per row, {made.shape[:1]}, or one per "
                f"target, {made.shape}. Received: sample_weight of shape {given.shape}"
            )
    return made * (given[:, None] if len(given.shape) == 1 else given)


def _of_one_kind(preprocessor: Preprocessor, rows: list[Row], chosen: np.ndarray) -> Any:
    """The chosen rows' tokens, all being texts or all pairs."""
    texts = [row for row, is_chosen in zip(rows, chosen, strict=True) if is_chosen]
    if isinstance(texts[0], str):
        return preprocessor(x=texts)
    # By name: keras-hub takes a lone positional pair for (x, y).
    return preprocessor(x=tuple(map(list, zip(*texts, strict=True))))


def _single(rows: list[Row], name: str) -> list[str]:
    """Rows that are no pairs: a language model reads one text."""
    for i, row in enumerate(rows):
        if isinstance(row, tuple):
            raise ValueError(
                f"`x` should have one text per row as '{name}', in which a pair's two texts are "
                f"put together. Received: {row!r} in row {i}"
            )
    return rows  # type: ignore[return-value]


def looked_at(texts: Mapping[str, Any], look: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Texts inside `tf.data`, with which a function is called once they have values.

    Args:
        texts: dict of tensors, or of tuples of two, by name.
        look: function of a dict of arrays.
    """
    import tensorflow as tf

    flat = keras.tree.flatten(dict(texts))

    def values(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        look(keras.tree.pack_sequence_as(dict(texts), arrays))
        return arrays

    seen = tf.numpy_function(values, flat, [tf.string] * len(flat), stateful=False)
    for tensor, given in zip(seen, flat, strict=True):
        tensor.set_shape(given.shape)
    found: dict[str, Any] = keras.tree.pack_sequence_as(dict(texts), seen)
    return found


def tokens_of_symbolic(preprocessor: Preprocessor, texts: Mapping[str, Any]) -> Any:
    """As `tokens_of`, inside `tf.data`: of tensors, or of a tuple of two for pairs."""
    import tensorflow as tf

    text: Any = texts.get("text", texts)
    if isinstance(text, tuple):
        first, second = text
    elif not isinstance(text, dict) and len(text.shape) == 2:  # Pairs, as `TaskMix` batches them.
        first, second = tf.unstack(text, num=2, axis=1)
    else:
        return preprocessor(x=text)
    pairs, is_single = preprocessor(x=(first, second)), tf.equal(second, "")

    def with_singles() -> Any:
        singles = preprocessor(x=first)
        return tf.nest.map_structure(
            lambda single, pair: tf.where(is_single[:, None], single, pair), singles, pairs
        )

    return tf.cond(tf.reduce_any(is_single), with_singles, lambda: pairs)
