"""What `compile` takes for "auto": defaults that train."""

from __future__ import annotations

from typing import Any

import keras

# Soft prompts want larger steps than weights.
_LEARNING_RATE = 0.005


def default_optimizer(optimizer: Any) -> Any:
    """Adam at 0.005 for "auto"; anything else as it is."""
    return keras.optimizers.Adam(_LEARNING_RATE) if is_auto(optimizer) else optimizer


def default_loss(
    classes: int | None, ignored: int | None, reduction: str | None
) -> keras.losses.Loss:
    """Sparse cross-entropy on logits, or the squared error of a score, over what counts.

    As transformers has it, one class is a score.

    Args:
        classes: int. How many classes there are; `None` where there are no classes.
        ignored: int. The label that does not count, or `None`.
        reduction: string. How it makes one number of many.
    """
    if classes == 1:
        return keras.losses.MeanSquaredError(reduction=reduction)
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=ignored, reduction=reduction
    )


def is_auto(value: Any) -> bool:
    """Whether a default is asked for."""
    return isinstance(value, str) and value == "auto"
