"""Batches of several widths on TensorFlow, where Keras takes two of them for the shapes of all."""

from __future__ import annotations

from collections.abc import Sequence
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
        inputs: the model's inputs.
        are_per_token: bool. Whether targets stand at tokens. A masked language model's are as many
            as places, and a classifier's as rows, however wide these are.
        is_only: bool. Whether the stream has one batch. Defaults to `False`.
        is_shown: bool. Whether the first batch is made for Keras to look at its shapes, and anew
            for a step: then it may have more columns than there are positions. Defaults to
            `False`.
    """

    def __init__(
        self,
        inputs: ModelInputs,
        are_per_token: bool,
        is_only: bool = False,
        is_shown: bool = False,
    ) -> None:
        self._inputs, self._are_per_token = inputs, are_per_token
        self._is_first, self._is_only, self._is_shown = True, is_only, is_shown
        self._widths: dict[str, int] = {}

    def __call__(
        self,
        x: dict[str, Any],
        y: TargetData,
        sample_weight: TargetData,
        widest: Sequence[int | None] | None = None,
    ) -> tuple[dict[str, Any], TargetData, TargetData]:
        """A batch as Keras may see it.

        Args:
            x: dict of arrays, the backbone's inputs (B, S) among them.
            y: array (B, …), or `None`.
            sample_weight: likewise.
            widest: list of ints. The most that each token input has; `None` of one whose batches
                are all of one width. Defaults to `None`: that of text that is put together here.
        """
        x, inputs = dict(x), self._inputs.splice.token_inputs
        if widest is None:
            widest = self._of_text()
        for i, (token_input, usual) in enumerate(zip(inputs, widest, strict=True)):
            name, width = token_input.name, int(x[token_input.name].shape[1])
            if usual is None:
                continue
            if self._is_first:
                most = None if self._is_shown else self._positions(i)
                own = None if self._is_only else _width_of_its_own(width, usual, most)
                if own is None:
                    self._widths[name] = own = (usual if self._is_only else most) or width
            else:
                own = self._widths.get(name, width)
            names = [token_input.mask_name, *token_input.other_names]
            x |= {n: _padded(x[n], own) for n in names if n is not None and n in x}
            x[name] = _padded(x[name], own, 0 if token_input.mask_name else self._pad())
            if token_input is inputs[-1] and self._are_per_token:
                y, sample_weight = _padded(y, own), _padded(sample_weight, own)
        self._is_first = False
        return x, y, sample_weight

    def _of_text(self) -> list[int | None]:
        """The most tokens of rows that are put together here; 0 where there is no limit."""
        packing = self._inputs.packing or self._inputs.mask_text
        assert packing is not None
        return [packing.limit(i) or 0 for i in range(len(self._inputs.splice.token_inputs))]

    def _positions(self, i: int) -> int | None:
        """The tokens that the backbone has positions for as its i-th input; `None`: no limit."""
        splice = self._inputs.splice
        taken = splice.num_virtual_tokens * (i < splice.num_transformer_submodules)
        most = splice.max_sequence_length
        return None if most is None else most - taken

    def _pad(self) -> int:
        """The padding's id, by which ESM knows it."""
        assert self._inputs.preprocessor is not None
        return int(self._inputs.preprocessor.tokenizer.pad_token_id or 0)


def _width_of_its_own(width: int, usual: int, most: int | None) -> int | None:
    """A width that no other batch has, or `None` where there are no more positions."""
    own = width + 1
    while own == usual or own % WIDTH_STEP == 0:
        own += 1
    return own if most is None or own <= most else None


def _padded(values: Any, width: int, value: int = 0) -> Any:
    """Rows with a value after them, where they are rows of tokens."""
    shape: Any = getattr(values, "shape", ())
    if len(shape) < 2 or shape[1] >= width:
        return values
    rest = [(0, 0), (0, width - shape[1]), *[(0, 0)] * (len(shape) - 2)]
    return np.pad(np.asarray(values), rest, constant_values=value)
