"""What `compile` takes for "auto": defaults that train."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt.fitting.targets import Targets

# Soft prompts want larger steps than weights.
_LEARNING_RATE = 0.005


def default_optimizer(optimizer: Any) -> Any:
    """Adam at 0.005 for "auto"; anything else as it is."""
    return keras.optimizers.Adam(_LEARNING_RATE) if _is_auto(optimizer) else optimizer


def default_loss(loss: Any, targets: Targets) -> Any:
    """Sparse cross-entropy on logits for "auto", the mean over the targets that count."""
    if not _is_auto(loss):
        return loss
    if targets.ignored is None:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=targets.ignored, reduction="mean_with_sample_weight"
    )


def default_metrics(metrics: Any) -> Any:
    """Accuracy for "auto"; anything else as it is."""
    if not _is_auto(metrics):
        return metrics
    return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]


def metric_arguments(metrics: Any, targets: Targets) -> dict[str, Any]:
    """`compile`'s arguments for metrics; those of "auto" are weighted where a label may not count.

    Such a label has a weight of 0.
    """
    if _is_auto(metrics) and targets.ignored is not None:
        return {"metrics": None, "weighted_metrics": default_metrics(metrics)}
    return {"metrics": default_metrics(metrics)}


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == "auto"
