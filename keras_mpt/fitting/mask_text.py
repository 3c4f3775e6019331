"""Texts that hold the mask token once, where an answer stands, as rows of tokens.

Letters: B rows, S tokens of the longest of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_mpt.arrays import to_numpy, up_to_step
from keras_mpt.data.texts import Row
from keras_mpt.fitting.mask_positions import MASK_POSITIONS
from keras_mpt.fitting.packing import token_lists
from keras_mpt.splicing.splice import Splice
from keras_mpt.types import Preprocessor


class Frame(NamedTuple):
    """What stands around a row's texts.

    Attributes:
        special: lists of special tokens: before the first text, between two, and after the last.
        segments: the segments of what stands one after another: of each token of the first special
            list, of all tokens of the first text, of the second special list, …
    """

    special: list[list[int]]
    segments: list[list[int]]


@dataclasses.dataclass(frozen=True)
class MaskText:
    """How a masked language model's texts become its inputs.

    Args:
        splice: the model's splice, which knows the backbone's inputs and positions.
        preprocessor: keras-hub preprocessor of a masked language model.
        truncation_side: `"left"` or `"right"`, where a text is cut that is too long; the mask token
            never is. `None`: it is an error. Defaults to `None`.
    """

    splice: Splice
    preprocessor: Preprocessor
    truncation_side: str | None = None

    @property
    def mask_id(self) -> int:
        """The mask token's id."""
        return int(self.preprocessor.tokenizer.mask_token_id)

    @property
    def mask_token(self) -> str:
        """The mask token as it stands in text, such as "[MASK]"."""
        tokenizer = self.preprocessor.tokenizer
        return str(getattr(tokenizer, "mask_token", None) or tokenizer.id_to_token(self.mask_id))

    def inputs(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """The backbone's inputs, each int32 (B, S), and the mask's places, (B, 1).

        A space before the mask token belongs to it, as transformers' tokenizers have it.

        Args:
            rows: list of B strings, or of pairs of them.

        Raises:
            ValueError: a row that does not hold the mask token once, or is too long.
        """
        texts = [(row,) if isinstance(row, str) else row for row in rows]
        self._check_masks(texts)
        parts = [[text.split(self.mask_token) for text in row] for row in texts]
        # What stands before a mask ends there.
        whole = [[*(p.rstrip() for p in text[:-1]), text[-1]] for row in parts for text in row]
        made = iter(token_lists(self.preprocessor.tokenizer, [p for text in whole for p in text]))
        ids, segments = [], []
        for i, row in enumerate(parts):
            tokens = [self._joined([next(made) for _ in text]) for text in row]
            frame = self._frame(len(row), i)
            of_row = self._framed(self._cut(tokens, frame, i), frame)
            ids.append(of_row[0])
            segments.append(of_row[1])
        return self._arrays(ids, segments)

    def refuse_masks(self, rows: Sequence[Row]) -> None:
        """Refuses texts that hold the mask token where tokens are masked at random.

        Args:
            rows: list of strings, or of pairs of them.

        Raises:
            ValueError: such a text.
        """
        for i, row in enumerate(rows):
            if self.mask_token in (row if isinstance(row, str) else " ".join(row)):
                raise ValueError(
                    f"`y` should hold labels where texts hold {self.mask_token!r}; without labels "
                    f"tokens are masked at random. Received: y=None with {row!r} in row {i}"
                )

    def _check_masks(self, texts: Sequence[tuple[str, ...]]) -> None:
        for i, row in enumerate(texts):
            count = sum(text.count(self.mask_token) for text in row)
            if count != 1:
                given = row[0] if len(row) == 1 else row
                raise ValueError(
                    f"`x` should have texts that hold {self.mask_token!r} once, where the answer "
                    f"stands. Received: {given!r} in row {i}, which holds it {count} times"
                )

    def _joined(self, parts: list[list[int]]) -> list[int]:
        """A text's tokens, from those of its parts before and after the mask."""
        return parts[0] if len(parts) == 1 else [*parts[0], self.mask_id, *parts[1]]

    def _cut(self, texts: list[list[int]], frame: Frame, row: int) -> list[list[int]]:
        """The texts' tokens, without what is too much."""
        size = sum(map(len, texts))
        limit = self.limit()
        most = size if limit is None else max(limit - sum(map(len, frame.special)), 1)
        if size <= most:
            return texts
        if self.truncation_side is None:
            raise ValueError(
                f"`x` should have texts of at most {most} tokens here "
                "(`preprocessor.sequence_length` sets it, up to the backbone's positions), or the "
                "model should have truncation_side='left' or 'right' to cut them. Received: one of "
                f"{size} tokens in row {row}"
            )
        flat = np.concatenate([np.asarray(text, "int64") for text in texts])
        others = np.flatnonzero(flat != self.mask_id)
        kept = np.full(size, True)
        too_many = size - most
        kept[others[:too_many] if self.truncation_side == "left" else others[-too_many:]] = False
        ends = np.cumsum([len(text) for text in texts])[:-1]
        pairs = zip(np.split(flat, ends), np.split(kept, ends), strict=True)
        return [text[is_kept].tolist() for text, is_kept in pairs]

    def _framed(self, texts: list[list[int]], frame: Frame) -> tuple[list[int], list[int]]:
        """A row's tokens and segments."""
        parts = [frame.special[0]]
        for text, after in zip(texts, frame.special[1:], strict=True):
            parts += [text, after]
        tokens = [token for part in parts for token in part]
        segments = []
        for i, (part, own) in enumerate(zip(parts, frame.segments, strict=True)):
            segments += own * len(part) if i % 2 else own
        return tokens, segments

    def _arrays(self, ids: list[list[int]], segments: list[list[int]]) -> dict[str, np.ndarray]:
        """Rows as arrays, up to their longest in a few steps of width."""
        width = up_to_step(max(map(len, ids)))
        limit = self.limit()
        width = width if limit is None else min(width, limit)
        token_input = self.splice.token_inputs[0]
        pad = int(self.preprocessor.tokenizer.pad_token_id or 0)

        def padded(rows: list[list[int]], value: int) -> np.ndarray:
            found = np.full((len(rows), width), value, "int32")
            for i, row in enumerate(rows):
                found[i, : len(row)] = row
            return found

        x = {token_input.name: padded(ids, pad)}
        if token_input.mask_name is not None:
            x[token_input.mask_name] = padded([[1] * len(row) for row in ids], 0)
        if "segment_ids" in token_input.other_names:
            x["segment_ids"] = padded(segments, 0)
        places = (x[token_input.name] == self.mask_id).argmax(axis=1)
        x[MASK_POSITIONS] = places.astype("int32")[:, None]
        return x

    def positions(self, i: int = 0) -> int | None:
        """The tokens that the backbone has positions for; `None`: no limit."""
        positions = self.splice.max_sequence_length
        return None if positions is None else positions - self.splice.num_virtual_tokens

    def limit(self, i: int = 0) -> int | None:
        """The most tokens that are read: as many as the preprocessor has too."""
        found = self.positions(), getattr(self.preprocessor, "sequence_length", None)
        return min((n for n in found if n is not None), default=None)

    def _frame(self, texts: int, row: int) -> Frame:
        if texts > len(self._frames):
            raise ValueError(
                f"`x` should have one text per row for a {type(self.preprocessor).__name__}. "
                f"Received: a pair in row {row}"
            )
        return self._frames[texts - 1]

    @functools.cached_property
    def _frames(self) -> list[Frame]:
        """What the preprocessor puts around one text, and around two, where it takes two."""
        import keras_hub

        if self.preprocessor.packer is None:  # keras-hub makes it with the first text.
            self.preprocessor.build(None)
        packer, given = self.preprocessor.packer, [[self.mask_id]]
        if not isinstance(packer, keras_hub.layers.MultiSegmentPacker):
            ids = to_numpy(packer(given))[0]
            return [self._seen(ids, np.zeros_like(ids))]
        return [
            self._seen(*(to_numpy(found)[0] for found in packer((given,) * count)))
            for count in (1, 2)
        ]

    def _seen(self, ids: np.ndarray, segments: np.ndarray) -> Frame:
        """What stands around texts that are the mask token alone."""
        end = np.flatnonzero(ids != int(self.preprocessor.tokenizer.pad_token_id or 0))[-1] + 1
        bounds = [b for place in np.flatnonzero(ids == self.mask_id) for b in (place, place + 1)]
        parts = np.split(ids[:end], bounds)
        own = np.split(segments[:end], bounds)
        return Frame([part.tolist() for part in parts[::2]], [part.tolist() for part in own])
