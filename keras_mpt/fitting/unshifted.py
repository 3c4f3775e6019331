"""Targets that are the input itself: transformers' `labels`, which its models move by one."""

from __future__ import annotations

import numpy as np

COPIES = (
    "`y` should hold the token that comes after each one: y[:, t] is the token at t + 1, where "
    "transformers takes `labels` equal to the input and moves them itself. Received: y equal to "
    "`{name}`, which trains the model to copy its input. For the next tokens give "
    "np.roll({name}, -1, axis=1), and a `sample_weight` of 0 at each row's last token; a "
    "preprocessor makes both of text"
)


def is_the_input(y: np.ndarray, ids: np.ndarray, counted: np.ndarray) -> bool:
    """Whether targets say what is there already, and not what comes next.

    Args:
        y: int array (B, S).
        ids: int array (B, S). The tokens that they stand at.
        counted: bool array (B, S). Which targets count.

    Returns:
        A bool; `False` where a text of one token repeated is both, or hardly any target counts.
    """
    if y.shape != ids.shape or counted.sum() < 2 or (y != ids)[counted].any():
        return False
    before_last = counted[:, :-1]
    return bool((y[:, :-1] != ids[:, 1:])[before_last].any())
