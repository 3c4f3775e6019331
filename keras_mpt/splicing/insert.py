"""Putting prompt positions into a sequence and taking them out again, as pure functions.

A prompt starts at one place in all rows, an int, or at a place of its own in each, an int tensor
(B,).
"""

from __future__ import annotations

from keras import ops

from keras_mpt.splicing.at_positions import at_positions
from keras_mpt.types import Tensor

Place = int | Tensor


def insert(sequence: Tensor, prompt: Tensor, at: Place) -> Tensor:
    """`[sequence[:, :at]; prompt; sequence[:, at:]]` along axis 1.

    Args:
        sequence: tensor, (B, S, …).
        prompt: tensor, (B, L, …).
        at: int, or int tensor (B,). Where the prompt starts: 0, or 1 to leave a start token in
            front.

    Returns:
        A tensor, (B, L + S, …).
    """
    if not isinstance(at, int):
        length, more = ops.shape(sequence)[1], ops.shape(prompt)[1]
        # Where what stands at each place is found in [sequence; prompt].
        place, start = _columns(length + more), at[:, None]
        after = ops.where(place < start + more, place - start + length, place - more)
        found = ops.where(place < start, place, after)
        return at_positions(ops.concatenate([sequence, prompt], axis=1), found)
    if at == 0:
        return ops.concatenate([prompt, sequence], axis=1)
    return ops.concatenate([sequence[:, :at], prompt, sequence[:, at:]], axis=1)


def insert_constant(sequence: Tensor, value: int, length: int, at: Place) -> Tensor:
    """`insert` with a prompt of `length` equal values, for masks and segment ids, (B, S)."""
    constant = ops.full_like(sequence[:, :1], value)
    return insert(sequence, ops.repeat(constant, length, axis=1), at)


def insert_first(sequence: Tensor, length: int, at: Place) -> Tensor:
    """`insert` with a prompt that repeats each row's first entry `length` times, (B, S)."""
    return insert(sequence, ops.repeat(sequence[:, :1], length, axis=1), at)


def insert_positions(positions: Tensor, length: int, at: Place) -> Tensor:
    """`insert` of the positions of `length` more tokens; those after move up, (B, S)."""
    more = ops.arange(length, dtype=positions.dtype)[None]
    if not isinstance(at, int):
        moved = ops.where(_columns(ops.shape(positions)[1]) < at[:, None], 0, length)
        prompt = at_positions(positions, at[:, None]) + more
        return insert(positions + ops.cast(moved, positions.dtype), prompt, at)
    prompt = positions[:, :1] + at + more
    return ops.concatenate([positions[:, :at], prompt, positions[:, at:] + length], axis=1)


def drop(sequence: Tensor, length: int, at: Place) -> Tensor:
    """What `insert` was given: `sequence` without the prompt's `length` positions.

    Args:
        sequence: tensor, (B, L + S, …).
        length: int. L.
        at: int, or int tensor (B,). Where the prompt starts.

    Returns:
        A tensor, (B, S, …).
    """
    if not isinstance(at, int):
        place = _columns(ops.shape(sequence)[1] - length)
        return at_positions(sequence, ops.where(place < at[:, None], place, place + length))
    if at == 0:
        return sequence[:, length:]
    return ops.concatenate([sequence[:, :at], sequence[:, at + length :]], axis=1)


def _columns(length: int | Tensor) -> Tensor:
    return ops.arange(length, dtype="int32")[None]
