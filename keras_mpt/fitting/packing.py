"""Prompts and responses as rows of tokens, put together here: keras-hub's packers cut either.

Letters: B rows, S tokens of the longest of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mpt.arrays import to_numpy, up_to_step
from keras_mpt.checks import check_choice, check_flag, warn_once
from keras_mpt.splicing.splice import TEXT_LENGTHS, Splice
from keras_mpt.types import Preprocessor, Tokenizer

Tokens = list[int]


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Rows of tokens, each list one per row.

    Attributes:
        encoder: an encoder's tokens; `None` where there is none.
        start: the tokens that are continued: a causal model's prompts, or a decoder's start.
        responses: what continues them.
        widths: the most tokens that an encoder takes, and the text that is continued.
    """

    encoder: list[Tokens] | None
    start: list[Tokens]
    responses: list[Tokens]
    widths: tuple[int | None, int | None]


@dataclasses.dataclass(frozen=True)
class Packing:
    """How a language model's prompts and responses become its inputs.

    Args:
        splice: the model's splice, which knows the backbone's inputs and positions.
        preprocessor: keras-hub preprocessor of a language model.
        truncation_side: `"left"` or `"right"`, where a prompt is cut that is too long with its
            response; `None`: it is an error. Defaults to `None`.
        add_end_token: bool. Whether the tokenizer's end token follows a response. Defaults to
            `True`.
    """

    splice: Splice
    preprocessor: Preprocessor
    truncation_side: str | None = None
    add_end_token: bool = True

    @property
    def has_encoder(self) -> bool:
        """Whether prompts are an encoder's text."""
        return len(self.splice.token_inputs) > 1

    @property
    def tokenizer(self) -> Tokenizer:
        """The preprocessor's."""
        return self.preprocessor.tokenizer

    def room_for(self, size: int) -> int:
        """The room that is kept for answers of up to so many tokens, in training and in scoring.

        One more than they have: a decoder without a cache reads the last of them too.

        Args:
            size: int. The tokens of the longest.
        """
        return size + 1

    def response_tokens(
        self, responses: Sequence[str], rows: Sequence[int] | None = None
    ) -> list[Tokens]:
        """Responses as tokens, with the end token where it is wanted.

        Args:
            responses: list of strings.
            rows: list of ints. Which rows they are of, for the message. Defaults to `None`: all.

        Raises:
            ValueError: a response without any token.
        """
        end = self.tokenizer.end_token_id if self.add_end_token else None
        after = [] if end is None else [int(end)]
        found = [tokens + after for tokens in token_lists(self.tokenizer, responses)]
        empty = next((i for i, tokens in enumerate(found) if not tokens), None)
        if empty is not None:
            raise ValueError(
                "`responses` should have at least one token each, where no end token follows "
                f"them. Received: {responses[empty]!r} in row "
                f"{empty if rows is None else rows[empty]}"
            )
        return found

    def rows(
        self, prompts: Sequence[str], responses: list[Tokens], room: Sequence[int] = ()
    ) -> PackedRows:
        """Prompts, cut where that is wanted, and their responses.

        Args:
            prompts: list of B strings.
            responses: list of B lists of token ids; empty ones where nothing follows yet.
            room: list of B ints. How many tokens are kept free for what follows each row, at least;
                none of more than its response. Defaults to `()`.

        Raises:
            ValueError: a prompt or a response that is too long, or a prompt without tokens.
        """
        tokens = token_lists(self.tokenizer, prompts)
        sizes = [len(response) for response in responses]
        sizes = [max(*pair) for pair in zip(sizes, room, strict=True)] if room else sizes
        widths = tuple(self.limit(i) for i in range(len(self.splice.token_inputs)))
        if self.has_encoder:
            around, start = self._around_encoder_text(prompts, tokens), self._start_of_decoder
            self._check_responses(sizes, [len(start)] * len(sizes), widths[1])
            cut = self._cut(tokens, [0] * len(tokens), sum(map(len, around)), widths[0])
            encoder = [[*around[0], *text, *around[1]] for text in cut]
            return PackedRows(
                encoder, [list(start)] * len(tokens), responses, (widths[0], widths[1])
            )
        start = self._start_of_text
        self._warn_of_two_starts(start, tokens)
        least = [len(start) + bool(text) for text in tokens]
        self._check_responses(sizes, least, widths[0])
        # The last token is a target alone: of n tokens n - 1 are read.
        read = [max(size - 1, 0) for size in sizes]
        cut = self._cut(tokens, read, len(start), widths[0])
        rows = [[*start, *text] for text in cut]
        bare = next((i for i, row in enumerate(rows) if not row), None)
        if bare is not None:
            raise ValueError(
                "`prompts` should have at least one token each. Received: "
                f"{prompts[bare]!r} in row {bare}"
            )
        return PackedRows(None, rows, responses, (None, widths[0]))

    def inputs(self, rows: PackedRows, with_responses: bool = True) -> dict[str, np.ndarray]:
        """The backbone's inputs, each int32 (B, S), padded on the right.

        Where prompts stand after the text also how long that is, (B,).

        Args:
            rows: the rows.
            with_responses: bool. Whether they go on with all but the last token of their responses.
                Defaults to `True`.
        """
        *encoders, last = self.splice.token_inputs
        x = {}
        for token_input in encoders:
            assert rows.encoder is not None
            made = self._padded(rows.encoder, rows.widths[0])
            x[token_input.name], x[str(token_input.mask_name)] = made
        read = rows.start
        if with_responses:
            read = [s + r[:-1] for s, r in zip(rows.start, rows.responses, strict=True)]
        x[last.name], x[str(last.mask_name)] = self._padded(read, rows.widths[1])
        if self.splice.is_after:
            x[TEXT_LENGTHS] = np.asarray([len(start) for start in rows.start], "int32")
        return x

    def targets(self, rows: PackedRows) -> tuple[np.ndarray, np.ndarray]:
        """The next tokens, int32 (B, S), and which of them are a response's, float32 (B, S)."""
        pairs = list(zip(rows.start, rows.responses, strict=True))
        y, _ = self._padded([start[1:] + response for start, response in pairs], rows.widths[1])
        weight = np.zeros(y.shape, "float32")
        for row, (start, response) in zip(weight, pairs, strict=True):
            row[len(start) - 1 : len(start) - 1 + len(response)] = 1
        return y, weight

    def _padded(self, rows: list[Tokens], limit: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Rows as one array, up to their longest in a few steps of width, and its mask."""
        width = up_to_step(max(map(len, rows)))
        width = width if limit is None else min(width, limit)
        ids = np.full((len(rows), width), int(self.tokenizer.pad_token_id or 0), "int32")
        mask = np.zeros(ids.shape, "int32")
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return ids, mask

    def _warn_of_two_starts(self, start: Tokens, tokens: list[Tokens]) -> None:
        """Says once that prompts, such as a chat template's, have the start token themselves."""
        if start and any(text[: len(start)] == start for text in tokens):
            warn_once(
                self.preprocessor,
                "two starts",
                "Prompts begin with the start token, and the preprocessor puts one in front of "
                "them too: leave out the prompts' own, as by "
                "`prompt.removeprefix(preprocessor.tokenizer.start_token)`. This is said once.",
                stacklevel=2,
            )

    def positions(self, i: int) -> int | None:
        """The tokens that the backbone has positions for as its i-th input; `None`: no limit."""
        positions = self.splice.max_sequence_length
        taken = self.splice.num_virtual_tokens * (i < self.splice.num_transformer_submodules)
        return None if positions is None else positions - taken

    def limit(self, i: int) -> int | None:
        """The most tokens that are read as the i-th input: as many as the preprocessor has too."""
        found = self.positions(i), getattr(self.preprocessor, self._length_name(i))
        return min((n for n in found if n is not None), default=None)

    def _length_name(self, i: int) -> str:
        """The preprocessor's name of that limit."""
        is_encoder = self.has_encoder and i == 0
        return "encoder_sequence_length" if is_encoder else "sequence_length"

    def _check_responses(self, sizes: list[int], before: list[int], limit: int | None) -> None:
        """Refuses responses that do not fit, of so many tokens after so many others."""
        for i, (size, least) in enumerate(zip(sizes, before, strict=True)):
            if limit is not None and least + size - 1 > limit:
                raise ValueError(
                    "`responses` should fit, since they are never cut: have at most "
                    f"{max(limit + 1 - least, 0)} tokens here (`preprocessor.sequence_length` sets "
                    f"it, up to the backbone's positions). Received: one of {size} tokens in row "
                    f"{i}"
                )

    def _cut(
        self, tokens: list[Tokens], read: list[int], special: int, limit: int | None
    ) -> list[Tokens]:
        """The prompts' tokens, of which each row reads so many others too."""
        if limit is None:
            return tokens
        found = []
        for i, (text, others) in enumerate(zip(tokens, read, strict=True)):
            most = max(limit - special - others, 0)
            if len(text) > most and self.truncation_side is None:
                name = self._length_name(0)
                beside = "" if self.has_encoder else " with their responses"
                raise ValueError(
                    f"`prompts` should fit{beside}: have at most {most} tokens here "
                    f"(`preprocessor.{name}` sets it, up to the backbone's positions), or the "
                    "model should have truncation_side='left' or 'right' to cut them. Received: "
                    f"one of {len(text)} tokens in row {i}"
                )
            first = len(text) - most if self.truncation_side == "left" else 0
            found.append(text if len(text) <= most else text[first : first + most])
        return found

    @functools.cached_property
    def _start_of_text(self) -> Tokens:
        """What generation reads before a text: so it is also trained and scored."""
        return self._generated("")

    @functools.cached_property
    def _start_of_decoder(self) -> Tokens:
        return self._generated({"encoder_text": [""], "decoder_text": [""]}, -1)

    def _around_encoder_text(
        self, prompts: Sequence[str], tokens: list[Tokens]
    ) -> tuple[Tokens, Tokens]:
        """What stands before and after an encoder's text."""
        special = self._generated({"encoder_text": [""], "decoder_text": [""]}, 0)
        text = next((i for i, found in enumerate(tokens) if found), None)
        if text is None:
            return special, []
        # It is seen where the text stands: each family has its own specials.
        given = {"encoder_text": [prompts[text]], "decoder_text": [""]}
        length = len(tokens[text]) + len(special)
        packed = self._generated(given, 0, encoder_sequence_length=length)
        splits = [(special[:i], special[i:]) for i in range(len(special), -1, -1)]
        return next(
            (pair for pair in splits if [*pair[0], *tokens[text], *pair[1]] == packed),
            (special, []),
        )

    def _generated(self, text: Any, i: int = 0, **lengths: int) -> Tokens:
        """The tokens of one text as the preprocessor prepares it for generation."""
        token_input = self.splice.token_inputs[i]
        given = text if self.has_encoder else [text]
        made = self.preprocessor.generate_preprocess(given, **lengths)
        mask = to_numpy(made[token_input.mask_name])[0] != 0
        return [int(token) for token in to_numpy(made[token_input.name])[0][mask]]


def check_packing(truncation_side: Any, add_end_token: Any) -> None:
    """Refuses values that these cannot have."""
    check_choice("truncation_side", truncation_side, (None, "left", "right"))
    check_flag("add_end_token", add_end_token)


def token_lists(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Tokens]:
    """Each text's tokens, without special ones.

    Args:
        tokenizer: keras-hub tokenizer.
        texts: list of strings.
    """
    if not len(texts):
        return []
    made = tokenizer(list(texts))
    if hasattr(made, "to_list"):  # A ragged tensor of TensorFlow's.
        made = made.to_list()
    return [[int(token) for token in to_numpy(row).ravel()] for row in made]
