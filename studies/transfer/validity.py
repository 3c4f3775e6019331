"""Which targets tell anything: those that the model can learn at all."""

from __future__ import annotations

from studies.transfer.part import Part
from studies.transfer.plan import FULL
from studies.transfer.summary import Runs, mean_and_deviation, scores, shots_of, targets_of

# By so much some method has to be ahead of the largest class.
MARGIN = 0.10


def decided_at(part: Part, runs: Runs, task: str) -> int | str:
    """All rows, or the most per class that the target was run with."""
    return [at for at in shots_of(runs) if any((m, at, task) in runs for m in part.methods)][-1]


def best_score(part: Part, runs: Runs, task: str) -> tuple[str, float]:
    """The best method there, and its mean score."""
    at = decided_at(part, runs, task)
    means = {
        name: mean_and_deviation(own)[0]
        for name in part.methods
        if (own := scores(runs, name, at, task))
    }
    best = max(means, key=lambda name: means[name])
    return best, means[best]


def valid_targets(part: Part, runs: Runs) -> list[str]:
    """The targets on which some method with all rows is ahead of the largest class by 10 points."""
    return [
        task
        for task in targets_of(runs, part.targets)
        if best_score(part, runs, task)[1] >= part.largest[task] + MARGIN
    ]


def told(part: Part, runs: Runs) -> str:
    """Which targets count, and why the others do not."""
    valid, lines = valid_targets(part, runs), []
    for task in targets_of(runs, part.targets):
        name, score = best_score(part, runs, task)
        at = decided_at(part, runs, task)
        where = "with all rows" if at == FULL else f"at k = {at}, all rows being not run yet"
        counts = "counts" if task in valid else "does not count in means"
        lines.append(
            f"- {task} {counts}: {part.methods[name].label} has {100 * score:.1f} {where}, the "
            f"largest class {100 * part.largest[task]:.1f}.\n"
        )
    return (
        f"\nA target counts in means where some method with all rows is ahead of the largest class "
        f"by {100 * MARGIN:.0f} points. Of targets that have but one seed at some k, while others "
        "have several, the scores there are shown, and in no mean until there is another:\n\n"
        + "".join(lines)
    )
