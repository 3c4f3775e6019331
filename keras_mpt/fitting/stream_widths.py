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
    batch takes, all batches get as many. So do those of an epoch of one batch, which Keras would
    take for the shapes of all that come in later epochs.

    Args:
        inputs: the inputs of a language model, masked or not, that takes text.
        is_only: bool. Whether the stream has one batch. Defaults to `False`.
    """

    def __init__(self, inputs: ModelInputs, is_only: bool = False) -> None:
        packing = inputs.packing or inputs.mask_text
        assert packing is not None
        self._packing, self._is_first, self._is_only = packing, True, is_only
        # A masked language model's targets are as many as places, however wide rows are.
        self._are_per_token = inputs.packing is not None
        self._widths: dict[str, int] = {}

    def __call__(
        self, x: dict[str, Any], y: TargetData, sample_weight: TargetData
    ) -> tuple[dict[str, Any], TargetData, TargetData]:
        """A batch as Keras may see it.

        Args:
            x: dict of arrays, the backbone's inputs (B, S) among them.
            y: array (B, S), or `None`; (B, P) of a masked language model.
            sample_weight: likewise.
        """
        x, inputs = dict(x), self._packing.splice.token_inputs
        for i, token_input in enumerate(inputs):
            name, width = token_input.name, int(x[token_input.name].shape[1])
            if self._is_first:
                own = None if self._is_only else self._width_of_its_own(i, width)
                most = self._packing.limit(i) if self._is_only else self._packing.positions(i)
                if own is None:
                    self._widths[name] = own = most or width
            else:
                own = self._widths.get(name, width)
            names = [token_input.mask_name, *token_input.other_names]
            x |= {n: _padded(x[n], own) for n in names if n is not None and n in x}
            # ESM knows padding by its id.
            pad = self._packing.preprocessor.tokenizer.pad_token_id or 0
            x[name] = _padded(x[name], own, 0 if token_input.mask_name else int(pad))
            if token_input is inputs[-1] and self._are_per_token:
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


def _padded(values: Any, width: int, value: int = 0) -> Any:
    """Rows with a value after them, where they are rows of tokens."""
    shape: Any = getattr(values, "shape", ())
    if len(shape) != 2 or shape[1] >= width:
        return values
    rest = [(0, 0), (0, width - shape[1])]
    return np.pad(np.asarray(values), rest, constant_values=value)
