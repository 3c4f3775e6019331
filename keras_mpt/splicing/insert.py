"""Putting prompt positions into a sequence and taking them out again, as pure functions."""

from __future__ import annotations

from keras import ops

from keras_mpt.types import Tensor


def insert(sequence: Tensor, prompt: Tensor, at: int) -> Tensor:
    """`[sequence[:, :at]; prompt; sequence[:, at:]]` along axis 1.

    Args:
        sequence: tensor, (B, S, …).
        prompt: tensor, (B, L, …).
        at: int. Where the prompt starts: 0, or 1 to leave a start token in front.

    Returns:
        A tensor, (B, L + S, …).
    """
    if at == 0:
        return ops.concatenate([prompt, sequence], axis=1)
    return ops.concatenate([sequence[:, :at], prompt, sequence[:, at:]], axis=1)


def insert_constant(sequence: Tensor, value: int, length: int, at: int) -> Tensor:
    """`insert` with a prompt of `length` equal values, for masks and segment ids, (B, S)."""
    constant = ops.full_like(sequence[:, :1], value)
    return insert(sequence, ops.repeat(constant, length, axis=1), at)


def insert_first(sequence: Tensor, length: int, at: int) -> Tensor:
    """`insert` with a prompt that repeats each row's first entry `length` times, (B, S)."""
    return insert(sequence, ops.repeat(sequence[:, :1], length, axis=1), at)


def insert_positions(positions: Tensor, length: int, at: int) -> Tensor:
    """`insert` of the positions of `length` more tokens; those after move up, (B, S)."""
    prompt = positions[:, :1] + at + ops.arange(length, dtype=positions.dtype)[None]
    return ops.concatenate([positions[:, :at], prompt, positions[:, at:] + length], axis=1)


def drop(sequence: Tensor, length: int, at: int) -> Tensor:
    """What `insert` was given: `sequence` without the prompt's `length` positions.

    Args:
        sequence: tensor, (B, L + S, …).
        length: int. L.
        at: int. Where the prompt starts.

    Returns:
        A tensor, (B, S, …).
    """
    if at == 0:
        return sequence[:, length:]
    return ops.concatenate([sequence[:, :at], sequence[:, at + length :]], axis=1)
