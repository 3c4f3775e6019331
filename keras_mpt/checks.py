"""Validators of sizes, numbers, flags and ids, with one form of message.

An integer is Python's or NumPy's; a bool is none.
"""

from __future__ import annotations

import difflib
import math
import numbers
import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

# Sizes are counted in 32 bits.
_SIZES = 1 << 31
# How much of a value a message shows.
_SHOWN = 400


def is_integer(value: object, least: int | None = None, below: int | None = None) -> TypeGuard[int]:
    """Whether a value is an integer, and in the range [least, below)."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        return False
    return bool((least is None or value >= least) and (below is None or value < below))


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    is_real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    return is_real and math.isfinite(value)  # type: ignore[arg-type]


def received(value: Any) -> str:
    """A value in a message: not too long, and also where Python refuses to write it out."""
    try:
        text = repr(value)
    except ValueError:  # An integer of thousands of digits.
        text = f"a {type(value).__name__} too long to write"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def check_size(name: str, value: Any) -> int:
    """A positive integer as Python's own, which JSON takes, and no larger than any size is."""
    if not is_integer(value, 1, _SIZES):
        limit = f" below {_SIZES}" if is_integer(value, _SIZES) else ""
        raise ValueError(
            f"`{name}` should be a positive integer{limit}. Received: {name}={received(value)}"
        )
    return int(value)


def check_sizes(sizes: Mapping[str, Any]) -> tuple[int, ...]:
    """Several positive integers, in their order."""
    return tuple(check_size(name, value) for name, value in sizes.items())


def check_count(name: str, value: Any) -> int:
    """An integer, 0 or more."""
    if not is_integer(value, least=0):
        raise ValueError(
            f"`{name}` should be an integer, 0 or more. Received: {name}={received(value)}"
        )
    return int(value)


def check_number(
    name: str, value: Any, least: float | None = None, above: float | None = None
) -> float:
    """A finite number in its range.

    Args:
        name: string. The argument.
        value: what it was given.
        least: float. The smallest value that is right. Defaults to `None`.
        above: float. What a right value is larger than, in the place of `least`. Defaults to
            `None`.
    """
    is_low = is_number(value) and (
        (least is not None and value < least) or (above is not None and value <= above)
    )
    if not is_number(value) or is_low:
        limit = "" if least is None else f" at least {least:g}"
        limit = limit if above is None else f" above {above:g}"
        raise ValueError(f"`{name}` should be a number{limit}. Received: {name}={received(value)}")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """True or False, as Python's own."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"`{name}` should be True or False. Received: {name}={received(value)}")
    return bool(value)


def check_flags(flags: Mapping[str, Any]) -> None:
    """Refuses anything but True or False for each of several arguments."""
    for name, value in flags.items():
        check_flag(name, value)


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Refuses anything but one of a few values; `True` is not 1."""

    def is_flag(x: Any) -> bool:
        return isinstance(x, (bool, np.bool_))

    if not any(is_flag(value) == is_flag(choice) and value == choice for choice in choices):
        *others, last = [repr(choice) for choice in choices]
        raise ValueError(
            f"`{name}` should be {', '.join(others)} or {last}. Received: {name}={received(value)}"
        )


def check_dense(values: Mapping[str, Any]) -> None:
    """Refuses tensors with rows of their own lengths, or without most of their values."""
    for name, value in values.items():
        kind = type(value).__name__
        if kind in ("RaggedTensor", "SparseTensor") or getattr(value, "is_nested", False):
            raise ValueError(
                f"`{name}` should be a dense tensor: rows are padded to one length, and the mask "
                f"is 0 at padding. Received: {name} of type {kind}"
            )


def check_utf8(name: str, text: str | bytes, where: str = "") -> str:
    """A text that a tokenizer can read.

    Args:
        name: string. The argument, for the message.
        text: the text.
        where: string. Where it stands, for the message. Defaults to `""`.

    Raises:
        ValueError: bytes that are no UTF-8, or half of a surrogate pair, which is what became of
            bytes that were read wrongly.
    """
    try:
        if isinstance(text, bytes):
            return text.decode()
        text.isascii() or text.encode()
    except UnicodeError:
        raise ValueError(
            f"`{name}` should have text in UTF-8: decode it with the encoding that it is in. "
            f"Received: {text!r}{where}"
        ) from None
    return str(text)


def check_integers(name: str, values: np.ndarray, kinds: str = "iuf") -> None:
    """Refuses what are no numbers. Whole numbers kept as floats will do."""
    if values.dtype.kind not in kinds and values.dtype.name != "bfloat16":
        raise ValueError(
            f"`{name}` should be integers, in rows of one length. Received: {name} of dtype "
            f"{values.dtype}, such as {values.ravel()[:1].tolist()}"
        )


def check_token_ids(name: str, ids: np.ndarray, vocabulary_size: int) -> None:
    """Refuses token ids outside the vocabulary: backends differ in what they make of these."""
    wrong = np.unique(ids[(ids < 0) | (ids >= vocabulary_size) | (ids != np.floor(ids))])
    if wrong.size:
        raise ValueError(
            f"`{name}` should have token ids in [0, {vocabulary_size}). Received: {name} with "
            f"{wrong[:8].tolist()}"
        )


def check_mask(name: str, mask: np.ndarray) -> None:
    """Refuses a mask of other values than 1 and 0, which would change what is computed."""
    wrong = mask[(mask != 0) & (mask != 1)]
    if wrong.size:
        raise ValueError(
            f"`{name}` should be 1 (or True) at tokens and 0 at padding. Received: {name} with "
            f"{np.unique(wrong)[:8].tolist()}"
        )


def is_padded_on_the_right(mask: np.ndarray) -> bool:
    """Whether each row has its tokens in front, and at least one.

    Args:
        mask: bool array (B, S), true at tokens.
    """
    return bool(mask[:, 0].all() and not (mask[:, 1:] & ~mask[:, :-1]).any())


def check_table_ids(name: str, ids: np.ndarray, rows: int | None, taken: int = 0) -> None:
    """Refuses numbers that the backbone has no embeddings for: backends differ in what they do.

    Args:
        name: string. The input.
        ids: array of numbers.
        rows: int. How many rows the table has; `None` where they are looked up in none, and need
            only be finite.
        taken: int. How many of these the prompt takes. Defaults to `0`.
    """
    if rows is None:
        is_wrong = ~np.isfinite(ids)
    else:
        is_wrong = (ids < 0) | (ids >= rows - taken) | (ids != np.floor(ids))
    if is_wrong.any():
        wanted = "be finite" if rows is None else f"have ids in [0, {rows - taken})"
        why = "" if rows is None else f": the backbone has {rows} of them"
        why += f" and the prompt takes {taken}" if taken else ""
        raise ValueError(
            f"`{name}` should {wanted}{why}. Received: {name} with "
            f"{np.unique(ids[is_wrong])[:8].tolist()}"
        )


def task_id(
    argument: str, task: Any, names: Sequence[str], others: str = "", after: str = ""
) -> int:
    """The id of a task that is given by its name or its id.

    Args:
        argument: string. The argument, for the message.
        task: what it was given.
        names: list of T strings, the tasks' names.
        others: string. What else it may be, put before the tasks in the message. Defaults to `""`.
        after: string. The same, put after them. Defaults to `""`.
    """
    if isinstance(task, str) and task in names:
        return list(names).index(task)
    if not is_integer(task, 0, len(names)):
        raise ValueError(
            f"`{argument}` should be {others}one of the tasks {received(list(names))}, "
            f"{'' if after else 'or '}an id in [0, {len(names)}){after}. Received: "
            f"{argument}={received(task)}"
        )
    return int(task)


_warned: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def warn_once(owner: Any, kind: str, text: str, stacklevel: int) -> None:
    """Warns, but of one kind of thing once for each object.

    Args:
        owner: the object, such as a model's layer.
        kind: string. What is warned of.
        text: string. The warning.
        stacklevel: int. As `warnings.warn` counts it from where this is called.
    """
    if not was_warned(owner, kind):
        _warned.setdefault(owner, set()).add(kind)
        warnings.warn(text, stacklevel=stacklevel + 1)


def was_warned(owner: Any, kind: str) -> bool:
    """Whether `warn_once` has warned of a kind of thing: what is looked for then costs nothing."""
    return kind in _warned.get(owner, ())


def check_keywords(owner: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuses keyword arguments that there are not, with the nearest one that there is.

    Args:
        owner: string. What is called, for the message.
        given: dict of the keyword arguments.
        known: their names.
    """
    known = sorted(known)
    for name, value in given.items():
        if name in known:
            continue
        within = [k for k in known if _words(k) <= _words(name) or _words(name) <= _words(k)]
        near = difflib.get_close_matches(name, within or known, n=1, cutoff=0.0 if within else 0.6)
        meant = f"`{near[0]}`" if near else f"one of {known}"
        raise ValueError(
            f"`{name}` should be {meant}: {owner} has no argument of that name. Received: "
            f"{name}={value!r}"
        )


def _words(name: str) -> set[str]:
    """A name's words: `num_ranks` has `rank`."""
    return {word.removesuffix("s") for word in name.lower().split("_")}


def shown(value: Any) -> str:
    """A value in a message: enum members as the strings that they are."""
    return f"'{value}'" if isinstance(value, str) else str(value)
