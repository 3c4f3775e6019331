"""Finding each task's numbers among logs."""

from __future__ import annotations

from collections.abc import Iterable


def tasks_and_measures(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The tasks and the measures that names such as "tone_accuracy" are made of.

    Both may have underscores. A task is what stands before "_loss", if it has as many of the
    measures as any; a measure is what is no task's.

    Args:
        names: names of logs, without those of validation data: "loss", "accuracy", "tone_loss",
            "tone_accuracy", …

    Returns:
        `(tasks, measures)`, two lists of strings in the order of `names`; the measures are those
        that a task has.
    """
    names = list(dict.fromkeys(names))
    known = set(names)
    candidates = [name.removesuffix("_loss") for name in names if name.endswith("_loss")]

    def not_of(tasks: list[str]) -> list[str]:
        made = {f"{task}_{name}" for task in tasks for name in names}
        return [name for name in names if name not in made]

    def having(measures: list[str], task: str) -> list[str]:
        return [m for m in measures if f"{task}_{m}" in known]

    # A metric called "my_loss" makes "my" a candidate, but not one with an accuracy.
    measures = not_of(candidates)
    counts = {task: len(having(measures, task)) for task in candidates}
    tasks = [task for task, count in counts.items() if 0 < count == max(counts.values())]
    common = having(not_of(tasks), tasks[0]) if tasks else []
    # What single tasks have, where they are measured by different metrics.
    owners = sorted(tasks, key=len, reverse=True)
    for name in names:
        owner = next((task for task in owners if name.startswith(f"{task}_")), None)
        if owner is not None and name.removeprefix(f"{owner}_") not in common:
            common.append(name.removeprefix(f"{owner}_"))
    return tasks, common
