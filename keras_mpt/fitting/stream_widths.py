"""Batches of several widths on TensorFlow, where Keras takes two of them for the shapes of all."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mpt.arrays import WIDTH_STEP
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.types import TargetData


class StreamWidths:
    """Gives a stream's first batch a width that no later one has, by padding on the right.

    Keras then knows that widths differ. Where the backbone has no more positions than the first
    batch takes, all batches get as many.

    Args:
        inputs: the inputs of a language model that takes text.
    """

    def __init__(self, inputs: ModelInputs) -> None:
        assert inputs.packing is not None
        self._packing, self._is_first = inputs.packing, True
        self._widths: dict[str, int] = {}

    def __call__(
        self, x: dict[str, Any], y: TargetData, sample_weight: TargetData
    ) -> tuple[dict[str, Any], TargetData, TargetData]:
        """A batch as Keras may see it.

        Args:
            x: dict of arrays, the backbone's inputs (B, S) among them.
            y: array (B, S), or `None`.
            sample_weight: array (B, S), or `None`.
        """
        x, inputs = dict(x), self._packing.splice.token_inputs
        for i, token_input in enumerate(inputs):
            name, width = token_input.name, int(x[token_input.name].shape[1])
            if self._is_first:
                own = self._width_of_its_own(i, width)
                if own is None:
                    self._widths[name] = own = self._packing.positions(i) or width
            else:
                own = self._widths.get(name, width)
            names = [name, token_input.mask_name, *token_input.other_names]
            x |= {n: _padded(x[n], own) for n in names if n is not None and n in x}
            if token_input is inputs[-1]:
                y, sample_weight = _padded(y, own), _padded(sample_weight, own)
        self._is_first = False
        return x, y, sample_weight

    def _width_of_its_own(self, i: int, width: int) -> int | None:
        """A width that packing never gives, or `None` where there are no more positions."""
        most, usual = self._packing.positions(i), self._packing.limit(i)
        own = width + 1
        while own == usual or own % WIDTH_STEP == 0:
            own += 1
        return own if most is None or own <= most else None


def _padded(values: Any, width: int) -> Any:
    """Rows with zeros after them, where they are rows of tokens."""
    shape: Any = getattr(values, "shape", ())
    if len(shape) != 2 or shape[1] >= width:
        return values
    return np.pad(np.asarray(values), [(0, 0), (0, width - shape[1])])
