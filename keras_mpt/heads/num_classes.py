"""Numbers of classes in their three forms: one for all tasks, a list in their order, or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mpt.checks import is_integer, received
from keras_mpt.config import MultitaskPromptTuningConfig, PromptTuningConfig
from keras_mpt.fitting.other_names import check_config
from keras_mpt.types import NumClasses


def in_order(num_classes: Any, names: Sequence[str], may_name_others: bool = False) -> Any:
    """A dict by the tasks' names as a list in their order; other forms as they are.

    Args:
        num_classes: int, list, dict of task name to int, or `None`.
        names: list of strings, the tasks' names.
        may_name_others: bool. Whether a dict may have other tasks too. Defaults to `False`.

    Raises:
        ValueError: a dict without a task, or with another one.
    """
    if not isinstance(num_classes, Mapping):
        return num_classes
    missing = [name for name in names if name not in num_classes]
    known = set(num_classes if may_name_others else names)
    unknown = [name for name in num_classes if name not in known]
    if missing or unknown:
        raise ValueError(
            f"`num_classes` should have each task's number of classes, those of "
            f"{received(list(names))}. Received: none for {received(missing)}"
            + (f", and one for unknown {received(unknown)}" if unknown else "")
        )
    return [num_classes[name] for name in names]


def checked_num_classes(num_classes: NumClasses, config: PromptTuningConfig) -> int | list[int]:
    """`num_classes` as plain integers, after checking it against the config's tasks."""
    check_config(config)
    names = config.names if isinstance(config, MultitaskPromptTuningConfig) else None
    if isinstance(num_classes, Mapping) and names is None:
        raise ValueError(
            "`num_classes` should be a positive integer where there are no tasks. Received: "
            f"num_classes={num_classes!r}"
        )
    given = in_order(num_classes, names or [])
    is_list = is_listed(given)
    counts = list(given) if is_list else [given]
    if not counts or not all(is_integer(n, least=1) for n in counts):
        raise not_classes(num_classes)
    if not is_list:
        return int(counts[0])
    num_tasks = None if names is None else len(names)
    if num_tasks != len(counts):
        raise ValueError(
            "`num_classes` should have one entry per task of a MultitaskPromptTuningConfig "
            f"(num_tasks={num_tasks}), or be one integer. Received: num_classes={num_classes!r}"
        )
    return [int(n) for n in counts]


def is_listed(num_classes: Any) -> bool:
    """Whether there is a number for each task, in their order."""
    is_array = isinstance(num_classes, np.ndarray) and num_classes.ndim == 1
    return is_array or isinstance(num_classes, (list, tuple))


def not_classes(num_classes: Any) -> ValueError:
    """The error for what is no number of classes."""
    return ValueError(
        "`num_classes` should be a positive integer, or a list with one per task. Received: "
        f"num_classes={num_classes!r}"
    )
