"""From prompts and answers to what a language model is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from studies.transfer.rows import Inputs

Arrays = tuple[Inputs, np.ndarray, np.ndarray]


def attached(x: Inputs, answers: Sequence[np.ndarray], width: int | None = None) -> Arrays:
    """Prompts with their answers.

    Args:
        x: `token_ids` and `padding_mask` (B, S) of the prompts, padded on the right, and others.
        answers: each row's tokens.
        width: int. Defaults to `None`: as wide as the longest row.

    Returns:
        Inputs (B, W), the token after each position (B, W), and weights (B, W): those of
        a row's answer add up to 1, so that a text counts no more than a word; others are 0.
    """
    lengths = x["padding_mask"].sum(axis=1)
    # What the last token of an answer is followed by is not asked.
    ends = lengths + np.array([len(answer) for answer in answers]) - 1
    width = width or int(ends.max())
    rows = len(answers)
    ids, weights = np.zeros((rows, width + 1), "int32"), np.zeros((rows, width), "float32")
    for row, (length, answer) in enumerate(zip(lengths, answers, strict=True)):
        ids[row, :length] = x["token_ids"][row, :length]
        ids[row, length : length + len(answer)] = answer
        weights[row, length - 1 : length - 1 + len(answer)] = 1.0 / len(answer)
    mask = (np.arange(width) < ends[:, None]).astype("int32")
    # Nothing is left behind the mask, where the last token was only a target.
    inputs = {**x, "token_ids": ids[:, :-1] * mask, "padding_mask": mask}
    return inputs, ids[:, 1:] * (weights > 0), weights


def taken_by(model: Any, arrays: Arrays) -> Arrays:
    """The same as a model takes it: one with prompts after the text is told how long that is."""
    x, y, weights = arrays
    if not model.splice.is_after:
        return arrays
    return {**x, "text_lengths": (weights > 0).argmax(axis=1) + 1}, y, weights


def last_positions(x: Inputs) -> np.ndarray:
    """Where each row's answer is predicted, (B,)."""
    return x["padding_mask"].sum(axis=1) - 1


def first_words(logits: np.ndarray, answers: Sequence[np.ndarray]) -> np.ndarray:
    """The class (B,) whose word begins with the likeliest token, of logits (B, V).

    A word's first token tells it from the others: `table.WORDS` has them so.
    """
    return logits[:, [int(answer[0]) for answer in answers]].argmax(axis=1)
