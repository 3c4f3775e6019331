"""What a step measures: its batch's targets as they count, and the losses that it has of them."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from keras import ops

from keras_mpt._keras import get_keras_mask, set_keras_mask
from keras_mpt.fitting import target_positions
from keras_mpt.fitting.among_words import among_words, is_among_words
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.objective import Objective
from keras_mpt.fitting.own_columns import with_outputs_axis
from keras_mpt.fitting.target_positions import TARGET_POSITIONS
from keras_mpt.fitting.targets import Targets
from keras_mpt.types import Tensor, Tensors


class Measured(Protocol):
    """What is asked of a model here: a `Fitting` has it."""

    model_inputs: ModelInputs
    targets: Targets
    objective: Objective | None
    has_one_output: bool


@dataclasses.dataclass(frozen=True)
class StepData:
    """A batch's targets and outputs as the loss and the metrics take them.

    Attributes:
        y: targets, (B, …); at `target_positions` where the batch has these.
        y_pred: outputs, (B, …).
        sample_weight: float tensor (B,) or of the targets' shape, or `None`.
        share: float or float tensor (). What part these are of the targets that the loss is a mean
            over; the others weigh nothing.
        losses: float tensor (B, …), a loss per target, where the step has computed them.
        is_taken: bool. Whether they are those at `target_positions`.
        measured: outputs and weights that metrics take in the place of these, or `None`.
    """

    y: Tensor
    y_pred: Tensors
    sample_weight: Tensor | None = None
    share: Any = 1.0
    losses: Tensor | None = None
    is_taken: bool = False
    measured: tuple[Tensors, Tensor] | None = None

    @property
    def of_metrics(self) -> StepData:
        """The same with the outputs and the weights that metrics take."""
        if self.measured is None:
            return self
        y_pred, weight = self.measured
        return dataclasses.replace(self, y_pred=y_pred, sample_weight=weight, measured=None)

    @property
    def loss_weight(self) -> Tensor | None:
        """The weights for the loss, a product: on PyTorch Keras writes a loss's mask into it."""
        if self.sample_weight is None:
            return None
        return ops.cast(self.sample_weight, "float32") * self.share

    @property
    def for_metrics(self) -> tuple[Tensor, Tensors, Tensor | None]:
        """Targets, outputs and weights as Keras's metrics take them.

        Keras means over a row's targets before it adds rows up; so those of a batch in which rows
        have few positions would count for more than others.
        """
        data = self.of_metrics
        given = data.y, data.y_pred, data.sample_weight
        if not self.is_taken:
            return given
        y, y_pred, weight = (None if t is None else _each_target(t) for t in given)
        return y, y_pred, weight


def _each_target(values: Tensor) -> Tensor:
    """(B, K, …) as (B·K, …)."""
    return ops.reshape(values, (-1, *values.shape[2:]))


def of_batch(
    model: Measured, x: dict[str, Tensor], y: Tensor, y_pred: Tensors, sample_weight: Tensor | None
) -> StepData:
    """What a model measures of a batch.

    Args:
        model: the model.
        x: dict of the batch's inputs.
        y: its targets.
        y_pred: the model's outputs.
        sample_weight: float tensor (B,) or (B, S), or `None`.
    """
    share = target_positions.share_of_all(x, y, model.objective)
    y, sample_weight = model.targets.counted(model.model_inputs, x, y, sample_weight)
    if model.has_one_output and y is not None and len(y.shape) > 1:
        y = with_outputs_axis(y, y_pred)
    kept = _losses.get()
    losses = None if kept is None or kept.y_pred is not y_pred else kept.values
    return StepData(y, y_pred, sample_weight, share, losses, TARGET_POSITIONS in x)


def of_metrics(
    model: Measured, x: dict[str, Tensor], y: Tensor, y_pred: Tensors, sample_weight: Tensor | None
) -> StepData:
    """As `of_batch`, with what metrics take: of label words accuracy is that of choosing one."""
    data = of_batch(model, x, y, y_pred, sample_weight)
    inputs, weight = model.model_inputs, data.sample_weight
    if weight is None or len(weight.shape) != 2 or not is_among_words(inputs, model.objective):
        return data
    # A masked language model's label stands at a row's one place.
    if inputs.takes_mask_positions and weight.shape[1] != 1:
        return data
    given = x.get("task_ids"), data.y, data.y_pred, weight
    return dataclasses.replace(data, measured=among_words(model.model_inputs, *given))


class _Kept:
    """The losses of a step, and the very outputs that they are of.

    On JAX a step's outputs are other objects after the gradients than before: its compiler sees
    that what is computed again of them is the same.
    """

    y_pred: Tensors = None
    values: Tensor = None


_losses: contextvars.ContextVar[_Kept | None] = contextvars.ContextVar(
    "keras_mpt_losses", default=None
)


@contextlib.contextmanager
def keeping_losses() -> Iterator[None]:
    """Around a step: its report does not compute again what the step has computed."""
    token = _losses.set(_Kept())
    try:
        yield
    finally:
        _losses.reset(token)


def keep_losses(y_pred: Tensors, noted: Sequence[Tensor]) -> None:
    """Keeps the losses of a step's outputs until it ends.

    Args:
        y_pred: the outputs.
        noted: what was noted of their loss: a float tensor (B, …), or nothing.
    """
    kept = _losses.get()
    if kept is None or len(noted) != 1:
        return
    (values,) = noted
    kept.y_pred, kept.values = y_pred, ops.stop_gradient(values)
    mask = get_keras_mask(values)
    if mask is not None:
        set_keras_mask(kept.values, mask)
