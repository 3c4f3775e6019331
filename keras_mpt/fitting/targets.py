"""What a model is trained towards: what targets may be, which count, how weights lie on them.

Letters: B rows, S tokens, C classes.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import numpy as np
from keras import ops

from keras_mpt.arrays import concrete, to_numpy
from keras_mpt.checks import warn_once
from keras_mpt.fitting import target_positions
from keras_mpt.fitting.losses import Kind
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.objective import Objective
from keras_mpt.fitting.own_columns import weight_per_target
from keras_mpt.fitting.setting import Setting
from keras_mpt.fitting.text_lengths import check_has_text_lengths
from keras_mpt.fitting.unshifted import COPIES, is_the_input
from keras_mpt.types import TargetData, Tensor

# The label of a token that does not count, as in transformers and PyTorch.
IGNORED = -100

Inputs: TypeAlias = dict[str, Tensor]


class Targets(abc.ABC):
    """A kind of targets."""

    # Whether a row has several targets, such as one per token.
    several_per_row: ClassVar[bool] = False
    # Whether each token of the last text has one.
    per_token: ClassVar[bool] = False
    # A label that does not count, if there is one.
    ignored: ClassVar[int | None] = None
    # Whether they are of logits; of other outputs nothing is known.
    of_logits: ClassVar[bool] = True
    # What a loss may take.
    kinds: ClassVar[frozenset[Kind]] = frozenset(Kind)
    # How the default loss makes one number of many: over all targets, or by what they weigh.
    reduction: ClassVar[str] = "sum_over_batch_size"

    @property
    def num_classes(self) -> int | Sequence[int] | None:
        """The number of classes, or each task's; `None` where there are no classes."""
        return None

    def setting(self, names: Sequence[str]) -> Setting:
        """What `compile` should know.

        Args:
            names: the tasks' names; none where there are no tasks.
        """
        return Setting(
            names,
            self.num_classes,
            self.of_logits,
            self.ignored,
            self.kinds,
            self.reduction,
            self.several_per_row,
        )

    @abc.abstractmethod
    def check(self, inputs: ModelInputs, x: Inputs, y: TargetData, objective: Objective) -> None:
        """Refuses targets that cannot be right.

        Args:
            inputs: the model's inputs.
            x: dict of a batch's checked inputs.
            y: its targets.
            objective: what the model was compiled for.
        """

    @abc.abstractmethod
    def token_mask(self, inputs: ModelInputs, x: Inputs) -> Tensor | None:
        """Which targets stand at a token, (B, S); `None` where they stand at none, or all do."""

    def counted(
        self, inputs: ModelInputs, x: Inputs, y: Tensor, sample_weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Targets and weights as the loss and the metrics take them.

        Args:
            inputs: the model's inputs.
            x: dict of a batch's inputs.
            y: its targets, (B,), (B, S) or (B, S, C).
            sample_weight: float tensor (B,) or (B, S), or `None`.

        Returns:
            `(y, sample_weight)`: where a row has several targets, its weight counts for each.
        """
        if not self.several_per_row or y is None or len(y.shape) not in (2, 3):
            return y, sample_weight
        each = y if len(y.shape) == 2 else y[..., 0]
        if sample_weight is not None:
            sample_weight = weight_per_target(ops.cast(sample_weight, "float32"), each)
        if self.ignored is None:
            return y, sample_weight
        counts = ops.not_equal(each, ops.cast(self.ignored, y.dtype))
        mask = self.token_mask(inputs, x)
        if mask is not None:
            counts = ops.logical_and(counts, ops.cast(mask, "bool"))
        weight = ops.cast(counts, "float32")
        weight = weight if sample_weight is None else weight * sample_weight
        is_counted = counts if len(y.shape) == 2 else counts[..., None]
        return ops.where(is_counted, y, ops.zeros_like(y)), weight

    def weights(
        self, inputs: ModelInputs, x: Inputs, values: Tensor, sample_weight: Tensor | None
    ) -> Tensor:
        """How much each value counts that was made of a batch's outputs, such as a distance.

        Args:
            inputs: the model's inputs.
            x: dict of a batch's inputs.
            values: float tensor (B,) or (B, S).
            sample_weight: float tensor (B,) or (B, S), or `None`.

        Returns:
            A float tensor of the shape of `values`: padding counts for nothing.
        """
        weights = ops.ones_like(values)
        mask = self.token_mask(inputs, x) if len(values.shape) == 2 else None
        if mask is not None:
            weights = weights * ops.cast(mask, weights.dtype)
        if sample_weight is None:
            return weights
        given = ops.cast(sample_weight, weights.dtype)
        if len(given.shape) > len(values.shape):  # Per token, of one value per row.
            return weights * ops.max(given, axis=-1)
        return weights * weight_per_target(given, values)


class AnyTargets(Targets):
    """Targets that nothing is known of: those of a backbone's own outputs."""

    of_logits = False

    def check(self, inputs: ModelInputs, x: Inputs, y: TargetData, objective: Objective) -> None:
        """Nothing is refused."""

    def token_mask(self, inputs: ModelInputs, x: Inputs) -> None:
        """`None`."""
        return None


class Tokens(Targets):
    """Tokens of a vocabulary, several per row.

    Args:
        vocabulary_size: int. How many tokens the logits are of.
    """

    several_per_row = True
    kinds = frozenset({Kind.LABELS, Kind.DISTRIBUTIONS, Kind.CLASSES, Kind.UNKNOWN})
    reduction = "mean_with_sample_weight"

    def __init__(self, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size


class NextTokens(Tokens):
    """A token per token, (B, S): those of language models."""

    per_token = True

    def check(self, inputs: ModelInputs, x: Inputs, y: TargetData, objective: Objective) -> None:
        """Refuses labels outside the vocabulary: backends differ in what they make of these.

        Warns once of labels that are the input.
        """
        if inputs.splice.is_after:
            check_has_text_lengths(x)
        labels = concrete(y, "y")
        if labels is not None:
            mask = self.token_mask(inputs, x)
            if mask is not None and labels.shape[:2] != tuple(mask.shape):
                raise ValueError(
                    f"`y` should have the next token of each position, {tuple(mask.shape)}, or the "
                    "class of each row of text, (N,), where its task has label words. Received: y "
                    f"of shape {labels.shape}"
                )
            self._warn_of_copies(inputs, x, labels)
            check_vocabulary(labels, self.vocabulary_size, x.get("task_ids"), objective)

    def _warn_of_copies(self, inputs: ModelInputs, x: Inputs, labels: np.ndarray) -> None:
        name, mask = inputs.splice.token_inputs[-1].name, self.token_mask(inputs, x)
        counted = labels != IGNORED
        if mask is not None and labels.shape == tuple(mask.shape):
            counted = counted & (to_numpy(mask) != 0)
        if is_the_input(labels, to_numpy(x[name]), counted):
            warn_once(self, "copies", COPIES.format(name=name), stacklevel=4)

    def token_mask(self, inputs: ModelInputs, x: Inputs) -> Tensor | None:
        """The mask of the text that is continued, at the positions that the outputs have."""
        mask = mask_of(inputs, x, -1)
        return None if mask is None else target_positions.taken(x, mask)

    def counted(
        self, inputs: ModelInputs, x: Inputs, y: Tensor, sample_weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Targets and weights, at the positions that the outputs have."""
        y, sample_weight = super().counted(inputs, x, y, sample_weight)
        are_some = target_positions.are_there(x)
        if are_some is None or y is None:
            return y, sample_weight
        weight = target_positions.taken(x, sample_weight)
        return target_positions.taken(x, y), weight * ops.cast(are_some, weight.dtype)

    def weights(
        self, inputs: ModelInputs, x: Inputs, values: Tensor, sample_weight: Tensor | None
    ) -> Tensor:
        """How much each value counts: those of outputs stand where these do."""
        are_some = target_positions.are_there(x)
        if are_some is None or len(values.shape) == 1:
            return super().weights(inputs, x, values, sample_weight)
        given = target_positions.taken(x, sample_weight)
        given = given * ops.cast(are_some, given.dtype)
        return super().weights(inputs, x, values, given)


class Spans(Targets):
    """The first and the last token of each row's answer, (B, 2)."""

    several_per_row = True
    kinds = frozenset({Kind.LABELS, Kind.CLASSES, Kind.UNKNOWN})

    def check(self, inputs: ModelInputs, x: Inputs, y: TargetData, objective: Objective) -> None:
        """Refuses spans that are not among a row's tokens."""
        spans, ids_name = to_numpy(y), inputs.splice.token_inputs[0].name
        rows, length = x[ids_name].shape
        if spans.shape != (rows, 2):
            raise ValueError(
                f"`y` should have the first and last token of each row's answer: shape {(rows, 2)}."
                f" Received: y of shape {spans.shape}"
            )
        mask = mask_of(inputs, x, 0)
        is_token = np.full((rows, length), True) if mask is None else to_numpy(mask) != 0
        inside = np.clip(spans, 0, length - 1).astype("int64")
        in_row = (spans == inside) & np.take_along_axis(is_token, inside, axis=1)
        wrong = np.flatnonzero(~in_row.all(axis=1) | (spans[:, 0] > spans[:, 1]))
        if wrong.size:
            row = int(wrong[0])
            raise ValueError(
                f"`y` should hold the first and last token of an answer among the {length} "
                f"positions and outside of padding. Received: {spans[row].tolist()} in row {row}, "
                f"and {wrong.size} wrong spans in all"
            )

    def token_mask(self, inputs: ModelInputs, x: Inputs) -> None:
        """`None`: a start and an end are no tokens."""
        return None


def check_vocabulary(
    labels: np.ndarray, size: int, task_ids: Tensor | None, objective: Objective
) -> None:
    """Refuses labels that are no tokens.

    Args:
        labels: targets, (B, …).
        size: int. V.
        task_ids: integer array (B,) or (), or `None` without tasks.
        objective: what the model was compiled for.
    """
    for goal, rows in objective.by_sort(task_ids, len(labels)):
        takes_labels = goal.kind is Kind.LABELS
        if not takes_labels and not (goal.kind is Kind.CLASSES and labels.ndim == 2):
            continue
        own = labels[rows]
        wrong = own[((own < 0) | (own >= size)) & (own != goal.ignored)]
        if not wrong.size:
            continue
        raise ValueError(
            f"`y` should hold token ids in [0, {size}), also where they do not count: those "
            "have a `sample_weight` of 0, or are the loss's `ignore_class`. Received: y with "
            f"{np.unique(wrong)[:8].tolist()}"
        )


def mask_of(inputs: ModelInputs, x: Inputs, i: int) -> Tensor | None:
    """The padding mask of a model's i-th token input, or `None` where it has none."""
    mask_name = inputs.splice.token_inputs[i].mask_name
    return None if mask_name is None else x[mask_name]
