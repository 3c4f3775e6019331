"""The page's tables of scores and of differences."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from studies.transfer.cells import difference, percent, rows_label
from studies.transfer.part import Part
from studies.transfer.summary import (
    Interval,
    Runs,
    interval,
    mean_difference,
    means_over_targets,
    paired_differences,
    scores,
    shots_of,
    targets_of,
)
from studies.transfer.validity import valid_targets
from tools.markdown import table

Differences = dict[str, list[float]]
# Rows per class, then pair of methods: their differences, and the interval of these.
Compared = dict[int | str, dict[tuple[str, str], tuple[Differences, Interval | None]]]

_DIFFERENCES = """\

### Differences

In points: the mean over targets of what the first method scores more than the second on the same
rows; in brackets the 95% interval of that by Student's t, each target's seeds being draws and the
targets as they are. They speak of the targets shown, not of other tasks. There are many, and none
is widened for that: one in twenty leaves out zero where there is nothing.

"""

_TEXTS = """
Free text: exact match / BLEU (sacrebleu) in percent, the input itself having a high BLEU.

"""

_VERDICTS = """\

### What it says

Of the differences above, those whose interval leaves out zero, in points.

"""


def overview(part: Part, runs: Runs) -> str:
    """The table of means, which the project's README shows too."""
    shots = shots_of(runs)
    means = {
        (name, at): means_over_targets(runs, name, at, counted_at(part, runs, at))
        for name in part.methods
        for at in shots
    }
    seeds = {at: max(len(own) for (_, k), own in means.items() if k == at) for at in shots}
    lines = []
    for name, method in part.methods.items():
        whole = [(means[name, at], seeds[at]) for at in shots]
        # Those of fewer seeds would be compared with the others all the same.
        cells = [
            f"{100 * statistics.mean(own):.1f}" if own and len(own) == n else "" for own, n in whole
        ]
        if any(cells):
            lines.append([method.label, *cells])
    return table(["method", *map(rows_label, shots)], lines)


def targets_at(part: Part, runs: Runs, shots: int | str) -> list[str]:
    """The targets that any method has runs of."""
    known = targets_of(runs, part.targets)
    return [t for t in known if any((m, shots, t) in runs for m in part.methods)]


def counted_at(part: Part, runs: Runs, shots: int | str) -> list[str]:
    """Those of them that count in means: a single draw waits, where other targets have several."""
    valid = valid_targets(part, runs)
    seeds = {
        task: max(len(runs.get((m, shots, task), {})) for m in part.methods if m != "zero_shot")
        for task in targets_at(part, runs, shots)
        if task in valid
    }
    several = any(count > 1 for count in seeds.values())
    return [task for task, count in seeds.items() if count > 1 or not several]


def score_table(part: Part, runs: Runs, shots: int | str) -> str:
    """A line for each method, a column for each target; those in brackets do not count."""
    targets, counted = targets_at(part, runs, shots), counted_at(part, runs, shots)
    lines = []
    for name, method in part.methods.items():
        cells = [percent(scores(runs, name, shots, task)) for task in targets]
        mean = percent(means_over_targets(runs, name, shots, counted))
        if any(cells):
            lines.append([method.label, *cells, mean])
    return f"\n{rows_label(shots)}:\n\n" + table(
        ["method", *(t if t in counted else f"({t})" for t in targets), "mean"], lines
    )


def text_table(part: Part, runs: Runs) -> str:
    """Exact match and BLEU of targets in free text; empty without any."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    columns: dict[str, None] = {}
    for (method, at, task), own in runs.items():
        values = [(e["exact_match"], e["bleu"]) for e in own.values() if "bleu" in e]
        if values:
            place = f"{task}, {rows_label(at)}"
            columns[place] = None
            found.setdefault(method, {})[place] = values
    lines = [
        [part.methods[name].label, *(_both(found[name].get(place, ())) for place in columns)]
        for name in part.methods
        if name in found
    ]
    return _TEXTS + table(["method", *columns], lines) if lines else ""


def _both(values: Sequence[tuple[float, float]]) -> str:
    return " / ".join(percent(own) for own in zip(*values, strict=True))


def compared(part: Part, runs: Runs) -> Compared:
    """Every pair of the part's that the log can tell of."""
    found: Compared = {}
    for at in shots_of(runs):
        for pair in part.compared:
            counted = counted_at(part, runs, at)
            differences = {
                task: values
                for task, values in paired_differences(runs, *pair, at).items()
                if task in counted
            }
            if differences:
                found.setdefault(at, {})[pair] = differences, interval(differences)
    return found


def differences_table(part: Part, found: Compared) -> str:
    """A line for each pair, a column for each number of rows."""
    lines = []
    for method, other in part.compared:
        cells = [difference_cell(*own.get((method, other), ({}, None))) for own in found.values()]
        if any(cells):
            lines.append([f"{part.methods[method].label} − {part.methods[other].label}", *cells])
    columns = ["difference", *map(rows_label, found)]
    return _DIFFERENCES + table(columns, lines) if lines else ""


def difference_cell(differences: Differences, found: Interval | None) -> str:
    """A difference, its interval, and of how many targets."""
    tasks = len(differences)
    if not tasks:
        return ""
    if found is None:
        return f"{100 * mean_difference(differences):+.1f} ({tasks} targets, no interval)"
    return difference(found, f"; {tasks} targets")


def verdicts(part: Part, compared: Compared) -> str:
    """The differences by their sign, and those that may be of either."""
    lines = []
    for at, pairs in compared.items():
        told: dict[str, list[str]] = {"ahead": [], "not told apart": []}
        for (method, other), (_, found) in pairs.items():
            if found is None:
                continue
            names = part.methods[method].label, part.methods[other].label
            mean, low, high = (100 * value for value in found)
            if low <= 0 <= high:
                told["not told apart"].append(f"{names[0]} and {names[1]}")
            else:
                first, second = names if mean > 0 else names[::-1]
                told["ahead"].append(f"{first} of {second} by {abs(mean):.1f}")
        # Labels have commas of their own.
        lines += [
            f"- {rows_label(at)}, {name}: {'; '.join(which)}.\n"
            for name, which in told.items()
            if which
        ]
    return _VERDICTS + "".join(lines) if lines else ""
