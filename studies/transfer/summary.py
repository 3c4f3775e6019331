"""From the log's lines to means, deviations and intervals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from studies.transfer.log import Entry

# What runs that are compared have in common, of their settings.
ALIKE = ("steps", "test_rows", "batch")
# Method and shots and task, then seed.
Runs = dict[tuple[str, int | str, str], dict[int, Entry]]
# A mean, and where it lies at the least and at the most.
Interval = tuple[float, float, float]


def target_runs(entries: Iterable[Entry]) -> Runs:
    """The targets' runs; of several with the same method, task, shots and seed, the last."""
    runs: Runs = {}
    for entry in entries:
        if entry["stage"] == "targets":
            place = entry["method"], entry["shots"], entry["task"]
            runs.setdefault(place, {})[entry["seed"]] = entry
    return runs


def check_one_budget(entries: Iterable[Entry]) -> None:
    """Refuses runs that cannot stand beside each other: of one number of rows, but other steps."""
    found: dict[int | str, set[tuple[Any, ...]]] = {}
    for entry in entries:
        if entry["stage"] == "targets":
            alike = tuple(entry["settings"].get(name) for name in ALIKE)
            found.setdefault(entry["shots"], set()).add(alike)
    for shots, budgets in found.items():
        if len(budgets) > 1:
            raise ValueError(
                "A log should hold runs of one budget for each number of rows per class; give "
                f"others a `--folder` of their own. Received: of {shots} rows runs with "
                f"{', '.join(ALIKE)} of {sorted(budgets, key=str)}"
            )


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the sample's standard deviation where there are two values or more."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def scores(runs: Runs, method: str, shots: int | str, task: str) -> list[float]:
    """One score per seed."""
    return [entry["score"] for _, entry in sorted(runs.get((method, shots, task), {}).items())]


def means_over_targets(
    runs: Runs, method: str, shots: int | str, targets: Sequence[str]
) -> list[float]:
    """One mean over all targets per seed; of the seeds that all of them have."""
    found = [runs.get((method, shots, task), {}) for task in targets]
    seeds = sorted(set.intersection(*(set(own) for own in found))) if found else []
    return [statistics.mean(own[seed]["score"] for own in found) for seed in seeds]


def paired_differences(
    runs: Runs, method: str, other: str, shots: int | str
) -> dict[str, list[float]]:
    """The method's score less the other's, under each target, of the seeds that both have."""
    differences = {}
    for name, at, task in runs:
        if name == method and at == shots:
            own, others = runs[method, shots, task], runs.get((other, shots, task), {})
            seeds = sorted(own.keys() & others.keys())
            if seeds:
                differences[task] = [own[s]["score"] - others[s]["score"] for s in seeds]
    return differences


def interval(differences: Mapping[str, Sequence[float]]) -> Interval | None:
    """The mean over targets, and its 95% interval by Student's t.

    The targets are as they are, and count the same; their seeds are draws. So each target's mean
    has its own variance, and Welch and Satterthwaite's rule gives the degrees of freedom of their
    sum. `None` where a target has but one seed.
    """
    if not differences or min(map(len, differences.values())) < 2:
        return None
    from scipy.stats import t

    mean = mean_difference(differences)
    # Of each target's mean.
    found = [(statistics.variance(own) / len(own), len(own)) for own in differences.values()]
    total = sum(variance for variance, _ in found)
    if total == 0:
        return mean, mean, mean
    freedom = total**2 / sum(variance**2 / (count - 1) for variance, count in found)
    half = float(t.ppf(0.975, freedom)) * total**0.5 / len(found)
    return mean, mean - half, mean + half


def mean_difference(differences: Mapping[str, Sequence[float]]) -> float:
    """The mean over targets of each one's mean."""
    return statistics.mean(statistics.mean(values) for values in differences.values())


def tuning_scores(
    entries: Iterable[Entry], method: str, shots: int | str | None = None
) -> dict[float, list[float]]:
    """What each rate scored on the pseudo-targets; without `shots`, in source training.

    A run that was repeated counts once.
    """
    stage = "tune sources" if shots is None else "tune"
    last = {
        (e["settings"]["rate"], e["task"], e["seed"]): e["score"]
        for e in entries
        if e["stage"] == stage and e["method"] == method and shots in (None, e["shots"])
    }
    found: dict[float, list[float]] = {}
    for (rate, _, _), value in sorted(last.items()):
        found.setdefault(rate, []).append(value)
    return found


def in_order(shots: Iterable[int | str]) -> list[int | str]:
    """Few rows before many, all of them last."""
    return sorted(set(shots), key=lambda k: (isinstance(k, str), k if isinstance(k, int) else 0))


def shots_of(runs: Runs) -> list[int | str]:
    """The rows per class that there are runs of."""
    return in_order(at for _, at, _ in runs)


def targets_of(runs: Runs, known: Sequence[str]) -> list[str]:
    """The targets that there are runs of, in the order of those that are known."""
    present = {task for _, _, task in runs}
    return [task for task in known if task in present]


def rows_tuned_for(entries: Iterable[Entry], method: str, shots: int | str) -> list[int | str]:
    """The rows per class that the method was tuned at: those nearest below `shots`, then above."""
    tuned = {e["shots"] for e in entries if e["stage"] == "tune" and e["method"] == method}
    rising = in_order({shots, *tuned})
    place = rising.index(shots) + 1
    return [at for at in (*reversed(rising[:place]), *rising[place:]) if at in tuned]
