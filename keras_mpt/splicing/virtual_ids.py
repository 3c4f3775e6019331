"""Rows that hold their own virtual tokens, as ids from V on.

Where every row has a prompt of its own length, at a place of its own, no prompt can be put in front
of all of them. So a row's virtual tokens are ids among its token ids: V + n is its n-th one, which
a table holds that comes with the batch. To all that follows they are tokens like others: a row is
padded behind them, and positions and masks count them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_mpt.splicing.at_positions import at_positions
from keras_mpt.splicing.splice import Splice, token_table
from keras_mpt.types import Backbone, Tensor, Tensors


class VirtualIds(Splice):
    """A splice in which a prompt is no tensor in front of the tokens, but ids among them.

    What is `prompts` elsewhere is here the table, a float tensor (B, R, M·d): each row's virtual
    tokens, as the backbone's M token inputs get them.

    Args:
        backbone: a functional backbone.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, 0)

    @property
    def submodules(self) -> int:
        """M, how many of the token inputs may have virtual tokens: those as wide as the first."""
        embedded = self.graph.rest.inputs[: len(self.token_inputs)]
        widths = [tensor.shape[-1] for tensor in embedded]
        return next((i for i, width in enumerate(widths) if width != widths[0]), len(widths))

    @property
    def takes_masks(self) -> bool:
        """Whether all token inputs have a mask, so that rows may be padded behind their tokens."""
        return all(token_input.mask_name is not None for token_input in self.token_inputs)

    @property
    def table_width(self) -> int:
        """M·d, the width of a table's rows."""
        return self.submodules * self.token_dim

    def embedded(
        self, i: int, inputs: dict[str, Any], prompts: Tensor
    ) -> tuple[Any, dict[str, Any]]:
        """One token input's embeddings (B, S, d), virtual tokens among them.

        Args:
            i: int. Which of `token_inputs`.
            inputs: the backbone's inputs by name, those of this token input at least.
            prompts: float tensor (B, R, M·d), the table.

        Returns:
            The embeddings, and a dict of what else of `inputs` the rest of the graph gets.
        """
        token_input = self.token_inputs[i]
        ids = ops.cast(inputs[token_input.name], "int32")
        other: dict[str, Any] = {}
        if token_input.mask_name is not None:
            mask = inputs[token_input.mask_name]
            other[token_input.mask_name] = ops.convert_to_tensor(mask)
        if token_input.ids_used_later:
            # A virtual token has no id: the row's first token stands in for it, as in `Splice`.
            is_real = ops.less(ids, self.vocabulary_sizes[i])
            first = ops.argmax(ops.cast(is_real, "int32"), axis=1)[:, None]
            stand_in = ops.take_along_axis(ids, ops.cast(first, "int32"), axis=1)
            other[token_input.name] = ops.where(is_real, ids, stand_in)
        tokens = self.look_up(i, ids, prompts)
        embedding = token_input.embedding
        if token_table(embedding) is embedding:
            return tokens, other
        return tokens + embedding.position_embedding(tokens), other

    def at_places(self, outputs: Tensors, places: Sequence[Tensor]) -> Tensors:
        """The outputs of a call at the user's tokens, wherever these stand.

        Args:
            outputs: what a call gave.
            places: list with an int tensor (B, S) per token input.
        """

        def taken(output: Tensor, i: int | None) -> Tensor:
            return output if i is None else at_positions(output, places[i])

        return self._map_outputs(taken, outputs)

    def look_up(self, i: int, ids: Tensor, table: Tensor) -> Tensor:
        """The embeddings of ids, virtual ones from the table, without positions.

        Args:
            i: int. Which of `token_inputs` the ids are of.
            ids: int tensor (B, S), in [0, V + R).
            table: float tensor (B, R, M·d).

        Returns:
            A float tensor (B, S, d).
        """
        size, width = self.vocabulary_sizes[i], self.token_dim
        ids, table = ops.cast(ids, "int32"), ops.convert_to_tensor(table)
        is_real, zeros = ops.less(ids, size), ops.zeros_like(ids)
        real = token_table(self.token_inputs[i].embedding)(ops.where(is_real, ids, zeros))
        if i >= self.submodules:
            return real
        own = ops.cast(table[:, :, i * width : (i + 1) * width], real.dtype)
        places = ops.where(is_real, zeros, ids - size)[..., None]
        virtual = ops.take_along_axis(own, ops.broadcast_to(places, ops.shape(real)), axis=1)
        return ops.where(is_real[..., None], real, virtual)
