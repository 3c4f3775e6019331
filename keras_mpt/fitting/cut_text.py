"""Whether a preprocessor cuts text: keras-hub's do without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import warn_once, was_warned
from keras_mpt.data.texts import Row
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.types import Preprocessor


def warn_of_cut_text(
    inputs: ModelInputs, texts: Mapping[str, Sequence[Row]], looked_at: int = 4
) -> None:
    """Says once that a model's preprocessor cuts text.

    Args:
        inputs: the model's inputs.
        texts: dict of rows of text by their name in the preprocessor's inputs.
        looked_at: int. How many of the longest rows are tokenized again. Defaults to `4`.
    """
    if inputs.preprocessor is None or was_warned(inputs.preprocessor, "cut text"):
        return
    mask_names = [token_input.mask_name for token_input in inputs.splice.token_inputs]
    cut = cut_text(inputs.preprocessor, texts, mask_names, looked_at)
    if cut is None:
        return
    limit = inputs.splice.max_sequence_length
    room = "" if limit is None else f", up to {limit - inputs.splice.num_virtual_tokens}"
    warn_once(
        inputs.preprocessor,
        "cut text",
        f"The preprocessor cuts text: of {cut[0]} tokens of a row it keeps {cut[1]}. Its "
        f"sequence length can be set{room}. This is said once.",
        stacklevel=3,
    )


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
