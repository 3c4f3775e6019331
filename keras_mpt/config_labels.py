"""What a config says of its tasks' classes: the words that stand for them, or their names."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mpt.checks import check_utf8, received

# Both are lists by task, or one list where there are no tasks.
LABEL_FIELDS = ("label_names", "label_words")


def checked_labels(field: str, labels: Any, of: str = "") -> list[str] | None:
    """One task's labels, in the order of its classes, or `None`.

    Args:
        field: string. The argument, for messages.
        labels: what it was given.
        of: string. Which task's they are, for messages. Defaults to `""`.

    Raises:
        ValueError: anything but a list of two or more different strings, none of them empty.
    """
    if labels is None:
        return None
    is_list = isinstance(labels, (list, tuple))
    if not is_list or not all(isinstance(label, str) and label for label in labels):
        raise ValueError(
            f"`{field}` should be a list of strings, none of them empty. Received: "
            f"{field}={received(labels)}{of}"
        )
    for label in labels:
        check_utf8(field, label)
    if len(labels) < 2:
        raise ValueError(
            f"`{field}` should be of two classes at least. Received: {field}={received(labels)}{of}"
        )
    twice = sorted(label for label, n in collections.Counter(labels).items() if n > 1)
    if twice:
        raise ValueError(
            f"`{field}` should be another string for each class. Received: "
            f"{field}={received(labels)}{of}, with {twice} more than once"
        )
    return list(labels)


def checked_labels_of_tasks(
    field: str, labels: Any, names: Sequence[str]
) -> dict[str, list[str]] | None:
    """Labels by task, for some of the tasks or all, or `None`.

    Args:
        field: string. The argument, for messages.
        labels: what it was given.
        names: list of T strings, the tasks' names.

    Raises:
        ValueError: anything but a dict by the tasks' names, or what `checked_labels` refuses.
    """
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        raise ValueError(
            f"`{field}` should be a dict of task name to list of strings, or None. Received: "
            f"{field}={received(labels)}"
        )
    known = set(names)
    unknown = [name for name in labels if name not in known]
    if unknown:
        raise ValueError(
            f"`{field}` should be of the tasks that there are, {received(list(names))}. Received: "
            f"{field} of {received(unknown)}"
        )
    # In the order of tasks: whoever reads a file sees the same one.
    found = {n: checked_labels(field, labels[n], f" of task {n!r}") for n in names if n in labels}
    return {name: own for name, own in found.items() if own is not None} or None


def with_tasks(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Both fields for the tasks that stay.

    Args:
        fields: mapping of a config's field to its value.
        names: mapping of each such task's name to the one that it has from now on.
    """
    return {
        field: {names[k]: own for k, own in (fields[field] or {}).items() if k in names}
        for field in LABEL_FIELDS
    }
