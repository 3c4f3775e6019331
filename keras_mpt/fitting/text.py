"""Text as keras-hub's preprocessors take it, and the weights that they give beside the user's."""

from __future__ import annotations

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.types import Data, TargetData

# The names of text in a model's inputs.
TEXT_NAMES = ("text", "encoder_text", "decoder_text")


def text_lists(text: Data) -> Data:
    """Text as keras-hub's preprocessors take it: lists of strings, symbolic tensors as they are."""
    if isinstance(text, tuple):
        return tuple(text_lists(t) for t in text)
    if isinstance(text, dict):
        return {name: text_lists(t) for name, t in text.items()}
    if isinstance(text, np.ndarray) and text.ndim == 2:  # Pairs, as `TaskMix` batches them.
        return tuple(text_lists(column) for column in text.T)
    if isinstance(text, list) and text and all(_is_pair(t) for t in text):
        return tuple(text_lists(list(column)) for column in zip(*text, strict=True))
    if isinstance(text, (np.ndarray, list)):
        for row, item in enumerate(text):
            if not isinstance(item, (str, bytes)):
                raise ValueError(
                    "`x` should have strings as text, or pairs of them. Received: "
                    f"{item!r} in row {row}"
                )
        return [t.decode() if isinstance(t, bytes) else str(t) for t in text]
    return text


def _is_pair(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2


def both_weights(made: TargetData, given: TargetData) -> TargetData:
    """A preprocessor's weights (B, S) times the user's, (B,) or (B, S)."""
    if made is None or given is None:
        return made if given is None else given
    if isinstance(given, (list, np.ndarray)):
        given = np.asarray(given)
        made = to_numpy(made) if keras.ops.is_tensor(made) else made
    return made * (given[:, None] if len(given.shape) == 1 else given)
