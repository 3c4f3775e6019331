"""What callbacks of a run know, kept with the run's state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from keras_mpt.training import run_state

_KEY = "callbacks"


@runtime_checkable
class Resumable(Protocol):
    """A callback that goes on in a resumed run with what it knew."""

    def run_state(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        """JSON values, and an array for each trained variable or none."""

    def set_run_state(self, about: dict[str, Any], values: list[np.ndarray]) -> None:
        """Takes on what `run_state` gave."""


def checked_callbacks(callbacks: Any) -> list[Resumable]:
    """The callbacks as a list, each of which has a state.

    Args:
        callbacks: list of callbacks.

    Raises:
        ValueError: another one.
    """
    found = list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    wrong = [type(callback).__name__ for callback in found if not isinstance(callback, Resumable)]
    if wrong:
        raise ValueError(
            "`callbacks` should be a list of callbacks with `run_state` and `set_run_state`, such "
            f"as BestWeights; others start anew in a resumed run. Received: {wrong}"
        )
    return found


def callback_states(
    callbacks: Sequence[Resumable],
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The callbacks' states, as JSON values and arrays by name.

    Args:
        callbacks: list of callbacks.
    """
    names, abouts = [], []
    arrays: dict[str, np.ndarray] = {}
    for i, callback in enumerate(callbacks):
        about, values = callback.run_state()
        names.append(type(callback).__name__)
        abouts.append(about)
        arrays |= {f"{_kind(i)}/{j}": value for j, value in enumerate(values)}
    # A state without callbacks is written as before there were any.
    return ({_KEY: [names, abouts]} if names else {}), arrays


def check_callback_states(
    callbacks: Sequence[Resumable],
    about: dict[str, Any],
    values: dict[str, np.ndarray],
    trained: Sequence[Any],
    source: str,
) -> None:
    """Refuses states of other callbacks, or that are not of these trained variables.

    Args:
        callbacks: list of callbacks.
        about: the JSON values of a run's state.
        values: its arrays.
        trained: the trained variables.
        source: string. Where the state is, for messages.
    """
    names = [type(callback).__name__ for callback in callbacks]
    kept = about[_KEY][0] if _KEY in about else []
    if kept != names:
        raise ValueError(
            f"`callbacks` should be those that the run in {source!r} had: {kept}. Received: {names}"
        )
    of_arrays = {name.partition("/")[0] for name in values}
    kinds = [_kind(i) for i in range(len(callbacks)) if _kind(i) in of_arrays]
    run_state.check_values(values, {kind: list(trained) for kind in kinds}, source)


def set_callback_states(
    callbacks: Sequence[Resumable], about: dict[str, Any], values: dict[str, np.ndarray]
) -> None:
    """Gives the callbacks the states that were kept.

    Args:
        callbacks: list of callbacks.
        about: the JSON values of a run's state.
        values: its arrays.
    """
    for i, callback in enumerate(callbacks):
        count = sum(name.startswith(f"{_kind(i)}/") for name in values)
        callback.set_run_state(about[_KEY][1][i], [values[f"{_kind(i)}/{j}"] for j in range(count)])


def _kind(i: int) -> str:
    return f"callback{i}"
