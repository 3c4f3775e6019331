"""Targets that are the tokens of some places of a row: those of masked language models."""

from __future__ import annotations

from keras_mpt.arrays import concrete
from keras_mpt.fitting.mask_positions import MASK_POSITIONS
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.objective import Objective
from keras_mpt.fitting.targets import Inputs, Tokens, check_vocabulary
from keras_mpt.types import TargetData


class MaskedTokens(Tokens):
    """A token per place that is asked for, (B, P); the weights of places that are none are 0."""

    def check(self, inputs: ModelInputs, x: Inputs, y: TargetData, objective: Objective) -> None:
        """Refuses labels that are not one per place, or outside the vocabulary."""
        labels = concrete(y, "y")
        if labels is None:
            return
        shape = tuple(x[MASK_POSITIONS].shape)
        if labels.shape[:2] != shape:
            raise ValueError(
                f"`y` should have the token of each of the `{MASK_POSITIONS}`: shape {shape}. "
                f"Received: y of shape {labels.shape}"
            )
        check_vocabulary(labels, self.vocabulary_size, x.get("task_ids"), objective)

    def token_mask(self, inputs: ModelInputs, x: Inputs) -> None:
        """`None`: which places are none is in the weights alone."""
        return None
