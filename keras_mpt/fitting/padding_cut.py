"""Batches of a `TaskMix` whose rows are of like length, without the padding that all of them have.

Only what has no part in a step is left out: its loss, its metrics and its gradients are, to
rounding, those of the same rows padded longer.

Letters: B rows, S tokens.
"""

from __future__ import annotations

import functools
from typing import Any

import keras

from keras_mpt._keras import sublayers
from keras_mpt.arrays import to_numpy, up_to_few
from keras_mpt.data.buckets import last_used
from keras_mpt.families import adds_losses
from keras_mpt.fitting import target_positions
from keras_mpt.fitting.mask_positions import MASK_POSITIONS
from keras_mpt.fitting.step_data import Measured
from keras_mpt.splicing.cut import TokenInput
from keras_mpt.types import TargetData

Arrays = dict[str, Any]


class PaddingCut:
    """Cuts what all rows of a batch are padded with on the right.

    Where padding has a part in a step it stays: without a padding mask, in a loss that is a mean
    over all positions, in one of a backbone's own outputs, in what a layer or a subclass adds to
    the loss, where positions are turned by a batch's width, and on the left.

    Args:
        model: the model.
    """

    def __init__(self, model: Measured) -> None:
        self._model = model
        self._inputs = model.model_inputs.splice.token_inputs
        self.targets = model.targets
        self._objective = model.objective

    @functools.cached_property
    def _layers(self) -> list[keras.layers.Layer]:
        return [self._model, *sublayers(self._model)]

    @functools.cached_property
    def _has_other_losses(self) -> bool:
        """Whether a step's loss is not only one of outputs and targets that this knows."""
        ours = [layer for layer in self._layers if hasattr(layer, "takes_positions")]
        return (
            any(not target_positions.is_ours(type(model)) for model in ours)
            or any(getattr(layer, "activity_regularizer", None) for layer in self._layers)
            or any(map(adds_losses, self._layers))
        )

    @functools.cached_property
    def _turns(self) -> set[int]:
        """Widths beyond which a layer turns positions otherwise, as Phi-3's may."""
        most = {getattr(layer, "pretraining_sequence_length", None) for layer in self._layers}
        prompt = self._model.model_inputs.splice.num_virtual_tokens
        return {n - prompt for n in most if n}

    def __call__(
        self, x: Arrays, y: TargetData, sample_weight: TargetData
    ) -> tuple[Arrays, TargetData, TargetData, list[int | None]]:
        """The batch with rows as wide as few batches' are: each width is compiled anew.

        Args:
            x: dict of arrays, the backbone's inputs (B, S) among them.
            y: its targets, or `None`.
            sample_weight: their weights, or `None`.

        Returns:
            The three, and S of each token input as it was; `None` where padding stays.
        """
        x = dict(x)
        widths: list[int | None] = []
        for token_input in self._inputs:
            least = self._least(token_input, x, y, sample_weight)
            whole = int(x[token_input.name].shape[1])
            width = whole if least is None else up_to_few(max(least, 1))
            if least is None or any(width <= n < whole for n in self._turns):
                widths.append(None)
                continue
            widths.append(whole)
            names = [token_input.name, token_input.mask_name, *token_input.other_names]
            x |= {name: x[name][:, :width] for name in names if name is not None and name in x}
            if self._has_targets(token_input):
                y = None if y is None else y[:, :width]
                is_per_token = getattr(sample_weight, "ndim", 0) == 2
                sample_weight = sample_weight[:, :width] if is_per_token else sample_weight
        return x, y, sample_weight, widths

    def _has_targets(self, token_input: TokenInput) -> bool:
        """Whether each of an input's tokens has a target."""
        return self.targets.per_token and token_input is self._inputs[-1]

    def _least(
        self, token_input: TokenInput, x: Arrays, y: TargetData, sample_weight: TargetData
    ) -> int | None:
        """How many of an input's places have a part in a step; `None` where padding has."""
        # Of other outputs than logits nothing is known.
        if token_input.mask_name is None or not self.targets.of_logits or self._has_other_losses:
            return None
        places = [last_used(x[token_input.mask_name])]
        if MASK_POSITIONS in x:
            places.append(x[MASK_POSITIONS] + 1)
        if self._has_targets(token_input) and y is not None:
            if not target_positions.are_alone(self._objective):
                return None
            if target_positions.have_weights(y, sample_weight):
                places.append(last_used(to_numpy(sample_weight)))
            elif self.targets.ignored is None:  # Then nothing says that padding does not count.
                return None
        return int(max(found.max() for found in places))
