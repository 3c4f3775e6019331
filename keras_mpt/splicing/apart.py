"""Where it saves time that rows read their prompt where all have it, as measured.

A copy of a prompt's keys and values costs memory to write and to read, and that grows with the
prompt and with the rows that need no copy; two attentions that are joined are more operations than
one, however long it is.
"""

from __future__ import annotations

import keras

# A shorter prompt is none to ask a backbone's blocks for.
LONG = 64
# Positions of which no copy is made, below which nothing is won. PyTorch has a kernel for the one
# attention, which reads copies fast.
SAVED = 2048 if keras.backend.backend() == "torch" else 512


def is_long(length: int) -> bool:
    """Whether a prompt is long enough for any rows.

    Args:
        length: int. L.
    """
    return length >= LONG


def saves_time(length: int, rows: int | None, prompts: int) -> bool:
    """Whether rows are served faster so than with a copy for each.

    Args:
        length: int. L.
        rows: int. B, or `None` where that is not known, and taken to be many.
        prompts: int. How many are read: those of the rows, or of the blocks that they are sorted
            into.
    """
    return is_long(length) and (rows is None or (rows - prompts) * length >= SAVED)
