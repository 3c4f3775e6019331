"""How far a student is from its teacher, row by row: what distillation makes small."""

from __future__ import annotations

from keras import ops

from keras_mpt.types import Tensor


def logits_distance(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """τ² · KL(softmax(teacher / τ) ‖ softmax(student / τ)), over the last axis.

    τ² keeps the gradient's size when τ changes (Hinton et al. 2015, section 2).

    Args:
        teacher: float tensor (…, C).
        student: float tensor (…, C).
        temperature: float. τ. Defaults to `1.0`.

    Returns:
        A float32 tensor (…).
    """
    teacher, student = (ops.cast(x, "float32") / temperature for x in (teacher, student))
    log_p, log_q = ops.log_softmax(teacher), ops.log_softmax(student)
    return temperature**2 * ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def scores_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """The squared difference of scores, (…, 1): a softmax over one output would be always 1.

    Args:
        teacher: float tensor (…, 1).
        student: float tensor (…, 1).

    Returns:
        A float32 tensor (…).
    """
    difference = ops.cast(teacher, "float32") - ops.cast(student, "float32")
    return ops.sum(ops.square(difference), axis=-1)


def states_distance(
    teacher: Tensor, student: Tensor, mask: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """The squared difference of hidden states, over their width and the tokens that count.

    Args:
        teacher: float tensor (B, S, d).
        student: float tensor (B, S, d).
        mask: integer or bool tensor (B, S), or `None` where all tokens count. Defaults to `None`.
        reduction: `"mean"` or `"sum"`, which grows with the width and the number of tokens.
            Defaults to `"mean"`.

    Returns:
        A float32 tensor (B,).
    """
    squares = ops.square(ops.cast(teacher, "float32") - ops.cast(student, "float32"))
    weights = None if mask is None else ops.cast(mask, "float32")
    if reduction == "mean":
        return weighted_mean(ops.mean(squares, axis=-1), weights, axis=1)
    per_token = ops.sum(squares, axis=-1)
    return ops.sum(per_token if weights is None else per_token * weights, axis=1)


def weighted_mean(values: Tensor, weights: Tensor | None = None, axis: int | None = None) -> Tensor:
    """Σ w · v / Σ w; 0 where no weight is above 0.

    Args:
        values: float tensor.
        weights: float tensor of that shape, or `None` for the plain mean. Defaults to `None`.
        axis: int, or `None` for all. Defaults to `None`.

    Returns:
        A float tensor.
    """
    if weights is None:
        return ops.mean(values, axis=axis)
    total = ops.sum(weights, axis=axis)
    # Not by a small number in the denominator, which would change every mean a little.
    safe = ops.where(total > 0, total, ops.ones_like(total))
    return ops.sum(values * weights, axis=axis) / safe
