"""The input `text_lengths`: how many of a row's tokens are the text that a prompt stands after."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mpt.arrays import concrete
from keras_mpt.checks import check_integers, is_padded_on_the_right
from keras_mpt.splicing.splice import TEXT_LENGTHS
from keras_mpt.types import TargetData, Tensor


def check_text_lengths(x: dict[str, Tensor], mask_name: str) -> None:
    """Refuses texts that do not stand in front of a row, and lengths that they cannot have.

    Args:
        x: dict of a model's inputs.
        mask_name: string. The mask of the tokens.

    Raises:
        ValueError: rows that are not padded on the right, or lengths that are not one for each row,
            from 1 to its tokens.
    """
    found = concrete(x[mask_name], mask_name)
    mask = None if found is None else np.asarray(found) != 0
    if mask is not None and not is_padded_on_the_right(mask):
        raise ValueError(
            f"`{mask_name}` should be 1 at each row's tokens, then 0, where the prompt stands "
            f"after the text: rows are padded on the right. Received: "
            f"{mask_name}={mask.astype(int).tolist()}"
        )
    lengths = concrete(x[TEXT_LENGTHS], TEXT_LENGTHS) if TEXT_LENGTHS in x else None
    if lengths is None:
        return
    check_integers(TEXT_LENGTHS, lengths)
    if mask is None:
        return
    tokens = mask.sum(axis=1)
    is_right = lengths.shape == tokens.shape
    is_right = is_right and np.isin(lengths, np.arange(1, mask.shape[1] + 1)).all()
    if not is_right or (lengths > tokens).any():
        raise ValueError(
            f"`{TEXT_LENGTHS}` should be one whole number per row, from 1 to the row's tokens, "
            f"{tokens.tolist()}: the prompt stands after so many. Received: "
            f"{TEXT_LENGTHS}={lengths.tolist()}"
        )


def check_has_text_lengths(x: dict[str, Tensor]) -> None:
    """Refuses rows to train on that do not say where their text ends."""
    if x.get(TEXT_LENGTHS) is None:
        raise ValueError(
            f"`x` should have '{TEXT_LENGTHS}' beside tokens where `prompt_position` is 'after', "
            "one number per row: the prompt stands after so many tokens, and only what follows is "
            "learned from; of text 'prompts' and 'responses' say it. Received: x with "
            f"{[name for name in x if x[name] is not None]}"
        )


def answers_alone(x: dict[str, Any], mask_name: str, sample_weight: TargetData) -> Any:
    """The weights (B, S) of what follows the texts: 1, or a row's own weight, there; 0 elsewhere.

    Args:
        x: dict of NumPy arrays, or of tensors of TensorFlow's.
        mask_name: string. The mask of the tokens.
        sample_weight: weights of the rows (B,), or `None`.
    """
    mask, lengths = x[mask_name], x[TEXT_LENGTHS]
    if isinstance(mask, np.ndarray):
        is_answer = np.arange(mask.shape[1]) >= np.asarray(lengths)[:, None] - 1
        found = (is_answer & (mask != 0)).astype("float32")
    else:
        import tensorflow as tf

        places = tf.range(tf.shape(mask)[1])
        is_answer = places >= tf.cast(lengths, "int32")[:, None] - 1
        found = tf.cast(is_answer & tf.not_equal(mask, tf.cast(0, mask.dtype)), "float32")
    return found if sample_weight is None else found * sample_weight[:, None]
