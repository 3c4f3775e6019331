"""Whether a preprocessor cuts text: keras-hub's do without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.data.texts import Row
from keras_mpt.types import Preprocessor


def cut_text(
    preprocessor: Preprocessor,
    texts: Mapping[str, Sequence[Row]],
    mask_names: Sequence[str | None],
    looked_at: int = 4,
) -> tuple[int, int] | None:
    """The tokens of a row that is cut, and how many are kept of it; `None` where none is found.

    Args:
        preprocessor: keras-hub preprocessor.
        texts: dict of rows of text by their name in its inputs.
        mask_names: list of strings. Under which name it gives the mask of each.
        looked_at: int. How many of the longest rows are tokenized again. Defaults to `4`.
    """
    for (name, rows), mask_name in zip(texts.items(), mask_names, strict=False):
        for row in sorted(rows, key=_characters, reverse=True)[:looked_at]:
            segments = (row,) if isinstance(row, str) else row
            empty = dict.fromkeys(texts, ("",) * len(segments))
            mask, makes_targets = _made(preprocessor, {**empty, name: segments}, mask_name)
            if mask is None or not mask.all():
                continue
            special, _ = _made(preprocessor, empty, mask_name)
            assert special is not None
            tokens = sum(_tokens(preprocessor, text) for text in segments) + int(special.sum())
            tokens -= len(segments) * _tokens(preprocessor, "")
            # Of next tokens it keeps one more than of inputs.
            is_continued = makes_targets and mask_name == mask_names[-1]
            if tokens > mask.size + (is_continued and hasattr(preprocessor, "generate_preprocess")):
                return tokens, mask.size
    return None


def _characters(row: Row) -> int:
    return len(row) if isinstance(row, str) else sum(map(len, row))


def _tokens(preprocessor: Preprocessor, text: str) -> int:
    return int(np.asarray(preprocessor.tokenizer(text)).size)


def _made(
    preprocessor: Preprocessor, row: Mapping[str, tuple[str, ...]], mask_name: str | None
) -> tuple[np.ndarray | None, bool]:
    """A row's mask, and whether targets are made of it too."""
    texts = {name: text if len(text) > 1 else text[0] for name, text in row.items()}
    made: Any = preprocessor(x=texts if len(texts) > 1 else texts.popitem()[1])
    x, y, _ = keras.utils.unpack_x_y_sample_weight(made)
    mask = None if mask_name is None or mask_name not in x else to_numpy(x[mask_name]) != 0
    return mask, y is not None
