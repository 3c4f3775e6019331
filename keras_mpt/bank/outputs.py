"""A mixed batch through one backbone, and each row through the head of its own adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import to_numpy, to_power_of_two
from keras_mpt.bank.adapter import Served
from keras_mpt.bank.kind import Given, Kind
from keras_mpt.bank.placing import table_of
from keras_mpt.bank.room import Room
from keras_mpt.bank.rows import check_rows_fit, last_tokens, own_prompts, placed_inputs
from keras_mpt.heads.task_heads import NO_CLASS


def outputs_of(
    x: dict[str, Any],
    rows: Sequence[Served],
    room: Room,
    batch_size: int,
    verbose: bool = False,
) -> Any:
    """The outputs of rows, as each row's own model gives them.

    Args:
        x: dict of the backbone's inputs, each (N, S), checked.
        rows: what answers each of the N rows.
        room: the sizes that are compiled.
        batch_size: int. Rows that run at once.
        verbose: bool. Whether to show progress. Defaults to `False`.

    Returns:
        A nest of arrays (N, …). Where rows differ in their number of classes, those that a row has
        not are −1e9.
    """
    parts = []
    progress = keras.utils.Progbar(len(rows), unit_name="row") if verbose else None
    for group in _groups(rows):
        for start in range(0, len(group), batch_size):
            chosen = group[start : start + batch_size]
            # A last batch of few sizes: each is compiled.
            padded = to_power_of_two(chosen)[: max(batch_size, len(chosen))]
            found = _batch({n: v[padded] for n, v in x.items()}, [rows[i] for i in padded], room)
            parts.append((chosen, found))
            if progress is not None:
                progress.add(len(chosen))
    return keras.tree.map_structure(
        lambda *arrays: _joined([p[0] for p in parts], arrays, len(rows)), *[p[1] for p in parts]
    )


def _groups(rows: Sequence[Served]) -> Iterator[np.ndarray]:
    """Rows that may run together: mostly all.

    Those of different kinds have other layers behind the backbone. Where a backbone takes no mask,
    as it looks at padding or finds it by itself, a row has to be as wide as it is in its own model.
    """
    keys: dict[Any, list[int]] = {}
    for i, served in enumerate(rows):
        kind, adapter = served.adapter.kind, served.adapter
        size = () if kind.splice.takes_masks else (adapter.length, adapter.config.submodules)
        keys.setdefault((id(kind), size), []).append(i)
    for found in keys.values():
        yield np.array(found)


def _batch(x: dict[str, np.ndarray], rows: list[Served], room: Room) -> Any:
    kind = rows[0].adapter.kind
    splice = kind.splice
    first = splice.token_inputs[0]
    for i in range(len(splice.token_inputs)):
        check_rows_fit(rows, last_tokens(x, splice, i), splice, i)
    size = room.longest if splice.takes_masks else rows[0].adapter.length
    prompts = [served.adapter.prompt(served.task) for served in rows]
    own = own_prompts(rows, 0, len(splice.token_inputs))
    placed, places = placed_inputs(splice, x, own, size)
    mask = x.get(str(first.mask_name))
    table = table_of(prompts, size, splice.table_width)
    given = Given(placed, table, [p.of_tokens for p in places], () if mask is None else mask)
    features = kind.features(given)
    if not rows[0].adapter.head:
        return features
    return kind.finished(_through_heads(kind, features, rows), mask)


def _through_heads(kind: Kind, features: Any, rows: list[Served]) -> np.ndarray:
    """Each row's logits, under its own task's part of its adapter's head."""
    by_adapter: dict[int, list[int]] = {}
    for i, served in enumerate(rows):
        by_adapter.setdefault(served.adapter.number, []).append(i)
    logits: list[Any] = [None] * len(rows)
    for of_adapter in by_adapter.values():
        every = kind.of_head(features, rows[of_adapter[0]].adapter.head, of_adapter)
        for i, own in zip(of_adapter, every, strict=True):
            logits[i] = own[..., rows[i].adapter.columns(rows[i].task)]
    return _stacked(logits)


def _stacked(logits: Sequence[np.ndarray]) -> np.ndarray:
    classes = max(own.shape[-1] for own in logits)
    found = np.full((len(logits), *logits[0].shape[:-1], classes), NO_CLASS, "float32")
    for row, own in zip(found, logits, strict=True):
        row[..., : own.shape[-1]] = own
    return found


def _joined(rows: list[np.ndarray], arrays: Sequence[Any], count: int) -> np.ndarray:
    """Parts in the order of all rows."""
    parts = [to_numpy(a) for a in arrays]
    classes = max(p.shape[-1] for p in parts)
    found = np.full((count, *parts[0].shape[1:-1], classes), NO_CLASS, parts[0].dtype)
    for own, part in zip(rows, parts, strict=True):
        found[own, ..., : part.shape[-1]] = part[: len(own)]
    return found
