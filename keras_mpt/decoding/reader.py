"""How a language model reads a whole text: the first half of every way to decode."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
from keras import ops

from keras_mpt.decoding.state import RowPrompts
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.splicing.at_positions import at_positions
from keras_mpt.splicing.splice import Splice
from keras_mpt.splicing.virtual_ids import VirtualIds
from keras_mpt.types import Tensor, Tensors


class Reader:
    """What a model's parts make of a text, without gradients and without dropout.

    Args:
        splice: the model's splice.
        prompt: its prompt layer.
        to_logits: function from the backbone's flat outputs to logits.
    """

    def __init__(
        self, splice: Splice, prompt: Prompt, to_logits: Callable[[list[Tensor]], Tensor]
    ) -> None:
        self.splice, self.prompt, self.to_logits = splice, prompt, to_logits
        last = splice.token_inputs[-1]
        self.ids_name, self.mask_name = last.name, str(last.mask_name)

    def outputs(self, inputs: dict[str, Tensor], prompts: RowPrompts) -> Tensors:
        """The backbone's outputs at the user's positions.

        Args:
            inputs: dict of the backbone's inputs, each (B, S).
            prompts: the rows' prompts.
        """
        of_rows = self.prompts_of_rows(prompts, ops.shape(inputs[self.ids_name])[0])
        return self.splice.user_positions(self.splice(inputs, of_rows, training=False), inputs)

    def prompts_of_rows(self, prompts: RowPrompts, rows: int | Tensor) -> Tensor:
        """Each row's prompt (B, M·L, d), as the splice takes it.

        Where `rows` tells prompts apart, each is made once.

        Args:
            prompts: the rows' prompts.
            rows: int or int tensor (). B.
        """
        tasks = prompts.task_ids
        if not isinstance(prompts.table, tuple):
            return prompts.table
        if isinstance(prompts.rows, tuple):
            return self.prompt.for_rows(tasks, rows)
        different = self.prompt.for_rows(tasks, 1 if tasks is None else tasks.shape[0])
        return ops.take(different, prompts.rows, axis=0)

    def look_up(self, i: int, table: Tensor) -> Callable[[Tensor], Tensor] | None:
        """How the ids of a token input are embedded; `None`: as the backbone does it.

        Args:
            i: int. Which of the splice's `token_inputs`.
            table: as in `RowPrompts`.
        """
        if isinstance(table, tuple):
            return None
        assert isinstance(self.splice, VirtualIds)
        return functools.partial(self.splice.look_up, i, table=table)

    def text(self, token_ids: Tensor) -> dict[str, Tensor]:
        """A text (B, S) as the backbone's inputs: every position may be looked at.

        Later ones cannot reach back, so the mask need not say where the text ends.
        """
        return {self.ids_name: token_ids, self.mask_name: ops.ones_like(token_ids)}

    def states(self, outputs: Tensors) -> Tensor:
        """Of the outputs, the states (B, S, d) of the text that is continued."""
        return self.splice.follows_last_input(outputs)

    def logits(self, outputs: Tensors, start: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Logits (B, length, V) at some positions, and the states that they are made of.

        Args:
            outputs: what `outputs` gave.
            start: int tensor (). The first position.
            length: int. How many.
        """
        states = self.states(outputs)
        columns = ops.cast(start, "int32") + ops.arange(length, dtype="int32")
        here = ops.take(states, columns, axis=1)
        return self._logits_of(here, outputs), here

    def logits_after(self, outputs: Tensors, last: Tensor) -> Tensor:
        """Logits (B, 1, V) after one token of each row.

        Args:
            outputs: what `outputs` gave.
            last: int tensor (B,). That token.
        """
        return self._logits_of(at_positions(self.states(outputs), last[:, None]), outputs)

    def _logits_of(self, here: Tensor, outputs: Tensors) -> Tensor:
        """Logits of some of the states among the outputs."""
        states = self.states(outputs)
        return self.to_logits([here if o is states else o for o in keras.tree.flatten(outputs)])
