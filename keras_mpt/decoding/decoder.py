"""The ways to get from one token to the next, as far as they are alike.

A decoder is asked in this order: `row_prompts`, outside of what is compiled; then `read`, once for
each row's text, then `next_logits` for token after token; or `first_logits`, then `score` for given
continuations.
"""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np
from keras import ops

from keras_mpt.decoding.reader import Reader
from keras_mpt.decoding.state import Beginnings, Context, RowPrompts
from keras_mpt.splicing.shared_cache import taken
from keras_mpt.splicing.splice import TEXT_LENGTHS
from keras_mpt.types import Tensor, Tensors


class Decoder(abc.ABC):
    """A way to get from one token to the next.

    Args:
        reader: how the model reads a whole text.
    """

    # Whether `read` computes something that is kept, and so is worth compiling.
    reads_once: ClassVar[bool] = True
    # Whether reading may be recorded and replayed, on PyTorch.
    reading_is_recorded: ClassVar[bool] = False

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def row_prompts(self, task_ids: np.ndarray | None, rows: int) -> RowPrompts:
        """What is looked up for a batch's rows before a compiled function is entered.

        Here each row's task.

        Args:
            task_ids: int array (B,), or `None` without tasks.
            rows: int. B.
        """
        return RowPrompts(() if task_ids is None else task_ids)

    def beside(self, context: Context, token_ids: np.ndarray, lengths: np.ndarray) -> Context:
        """What rows are read with, before a compiled function is entered.

        Args:
            context: the rows' prompts, and the backbone's other inputs.
            token_ids: int array (B, S). Their text, padded on the right.
            lengths: int array (B,). How many tokens each has.

        Returns:
            The same, with what says where prompts stand, if that is after the text.
        """
        if not self.reader.splice.is_after:
            return context
        return context._replace(others={**context.others, TEXT_LENGTHS: lengths.astype("int32")})

    @abc.abstractmethod
    def read(
        self, text_ids: Tensor, context: Context, room: int = 0, with_states: bool = False
    ) -> tuple[Tensor | None, Tensors]:
        """Reads each row's text.

        Args:
            text_ids: int tensor (B, S).
            context: what stands before it.
            room: int. How many tokens may come after it. Defaults to `0`.
            with_states: bool. Whether its hidden states are needed. Defaults to `False`.

        Returns:
            Its hidden states (B, S, d), or `None`; and the cache to go on from.
        """

    @abc.abstractmethod
    def next_logits(
        self, token_ids: Tensor, cache: Tensors, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensors]:
        """The logits (B, V) after the token before a position, its states (B, d), and the cache.

        Args:
            token_ids: int tensor (B, S). The whole text so far.
            cache: what `read` or the step before gave.
            index: int tensor (). The position to fill.
        """

    @abc.abstractmethod
    def first_logits(
        self, text_ids: Tensor, context: Context, last: Tensor
    ) -> tuple[Tensor, Tensors]:
        """Reads each row's text, which may end before the others' do.

        Args:
            text_ids: int tensor (B, S). What stands after a row's end reaches nothing before it.
            context: what stands before the text.
            last: int tensor (B,). Each row's last token.

        Returns:
            The logits (B, 1, V) after it, and the cache to go on from.
        """

    @abc.abstractmethod
    def text_of_runs(
        self, ids: np.ndarray, rows: np.ndarray, start: int, tokens: np.ndarray
    ) -> np.ndarray:
        """The `text` of `Beginnings`.

        Args:
            ids: int array (B, S). The rows' text.
            rows: int array (R,). Each beginning's row.
            start: int. How long these rows are.
            tokens: int array (R, n). The beginnings.
        """

    @abc.abstractmethod
    def score(self, cache: Tensors, runs: Beginnings) -> Tensor:
        """The sums (R, G), in float32, of log-probabilities of all tokens but continuations' first.

        Args:
            cache: what `first_logits` gave.
            runs: the continuations by their beginnings.
        """


class KeepsKeys(Decoder):
    """Goes on from the keys and values of all tokens before."""

    reading_is_recorded = True

    @abc.abstractmethod
    def run_text(
        self, text_ids: Tensor, context: Context, room: int, last: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor, Tensors]:
        """Runs each row's text.

        Args:
            text_ids: int tensor (B, S).
            context: what stands before it.
            room: int. How many tokens may come after it.
            last: int tensor (B,). The tokens after which logits are wanted. Defaults to `None`.

        Returns:
            The logits (B, 1, V) after these, where they are wanted; the text's hidden states
            (B, S, d); and the cache to go on from.
        """

    def read(
        self, text_ids: Tensor, context: Context, room: int = 0, with_states: bool = False
    ) -> tuple[Tensor | None, Tensors]:
        """The text's hidden states, and what is kept of it and of what stands before it."""
        _, states, cache = self.run_text(text_ids, context, room)
        return states, cache

    def first_logits(
        self, text_ids: Tensor, context: Context, last: Tensor
    ) -> tuple[Tensor, Tensors]:
        """By running the texts once."""
        logits, _, cache = self.run_text(text_ids, context, 0, last)
        return logits, cache

    @abc.abstractmethod
    def step(
        self, tokens: Tensor, cache: Tensors, index: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Runs tokens that come after those in the cache.

        Args:
            tokens: int tensor (B, n).
            cache: what `read` or an earlier step gave.
            index: int or int tensor (). How many of the user's tokens are before these.

        Returns:
            Logits (B, n, V), hidden states (B, n, d), and the cache with these tokens.
        """

    def next_logits(
        self, token_ids: Tensor, cache: Tensors, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensors]:
        """By running the token before the position alone."""
        last = ops.slice(token_ids, (0, index - 1), (ops.shape(token_ids)[0], 1))
        logits, states, cache = self.step(last, cache, index - 1)
        return logits[:, 0], states[:, 0], cache

    def text_of_runs(
        self, ids: np.ndarray, rows: np.ndarray, start: int, tokens: np.ndarray
    ) -> np.ndarray:
        """None: it was read."""
        return ids[rows, :0]

    def taken(self, cache: Tensors, rows: Tensor, queries: int) -> Tensors:
        """What is kept of some rows.

        Args:
            cache: what `read` or a step gave.
            rows: int tensor (R,). These.
            queries: int. How many of their tokens come next.
        """
        return taken(cache, rows)

    def score(self, cache: Tensors, runs: Beginnings) -> Tensor:
        """From the keys and values of each row's text.

        A beginning comes after it, in the place of what padding the row has: the causal mask hides
        what is left of that.
        """
        tokens = ops.cast(runs.tokens, "int32")
        kept = self.taken(cache, runs.rows, tokens.shape[1])
        logits, _, _ = self.step(tokens, kept, runs.start)
        return _of_continuations(logits, runs)


class Rereads(Decoder):
    """Runs the whole text again for every new token.

    Later positions cannot reach back, so it is exact for every family, and slower.
    """

    @abc.abstractmethod
    def outputs(self, token_ids: Tensor, cache: Tensors) -> Tensors:
        """The backbone's outputs at the user's positions, for the whole text so far.

        Args:
            token_ids: int tensor (B, S).
            cache: what `read` gave.
        """

    def next_logits(
        self, token_ids: Tensor, cache: Tensors, index: Tensor
    ) -> tuple[Tensor, Tensor, Tensors]:
        """By running the whole text."""
        logits, states = self.reader.logits(self.outputs(token_ids, cache), index - 1, 1)
        return logits[:, 0], states[:, 0], cache

    def first_logits(
        self, text_ids: Tensor, context: Context, last: Tensor
    ) -> tuple[Tensor, Tensors]:
        """By running the texts."""
        _, cache = self.read(text_ids, context)
        return self.reader.logits_after(self.outputs(text_ids, cache), last), cache

    def text_of_runs(
        self, ids: np.ndarray, rows: np.ndarray, start: int, tokens: np.ndarray
    ) -> np.ndarray:
        """Each beginning's whole text, and itself."""
        text = ids[rows]
        text[:, start : start + tokens.shape[1]] = tokens
        return text

    def score(self, cache: Tensors, runs: Beginnings) -> Tensor:
        """By running text and beginning as a whole."""
        outputs = self.outputs(ops.cast(runs.text, "int32"), taken(cache, runs.rows))
        logits, _ = self.reader.logits(outputs, runs.start, runs.tokens.shape[1])
        return _of_continuations(logits, runs)


class WholeText(Rereads):
    """Runs prompt and text, and an encoder where there is one, for every new token."""

    reads_once = False

    def read(
        self, text_ids: Tensor, context: Context, room: int = 0, with_states: bool = False
    ) -> tuple[Tensor | None, Context]:
        """Nothing is kept but what stands before the text."""
        states = self.reader.states(self.outputs(text_ids, context)) if with_states else None
        return states, context

    def outputs(self, token_ids: Tensor, cache: Context) -> Tensors:
        """The backbone's outputs at the user's positions."""
        x = {**cache.others, **self.reader.text(token_ids)}
        return self.reader.outputs(x, cache.prompts)


def log_softmax(logits: Tensor) -> Tensor:
    """In float32, whatever the model computes in."""
    return ops.log_softmax(ops.cast(logits, "float32"), axis=-1)


def _of_continuations(logits: Tensor, runs: Beginnings) -> Tensor:
    """The sums (R, G) that `score` gives, of logits (R, n, V)."""
    found = ops.take_along_axis(log_softmax(logits), ops.cast(runs.next, "int32"), axis=-1)
    places = ops.arange(found.shape[1])[None, :, None]
    is_token = places < ops.cast(runs.sizes, "int32")[:, None]
    return ops.sum(ops.where(is_token, found, ops.zeros_like(found)), axis=1)
