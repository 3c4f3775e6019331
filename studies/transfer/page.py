"""From the log to docs/studies/transfer/README.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from studies.transfer.appendix import costs, settings, sizes
from studies.transfer.cells import difference, percent, rows_label
from studies.transfer.chart import CHART
from studies.transfer.log import Entry
from studies.transfer.methods import METHODS
from studies.transfer.source_scores import sources
from studies.transfer.summary import (
    Interval,
    Runs,
    check_one_budget,
    interval,
    mean_difference,
    means_over_targets,
    paired_differences,
    scores,
    shots_of,
    target_runs,
    targets_of,
)
from studies.transfer.workbench import MAX_TOKENS
from tools.machine import in_words
from tools.markdown import table

Differences = dict[str, list[float]]
# Rows per class, then pair of methods: their differences, and the interval of these.
Compared = dict[int | str, dict[tuple[str, str], tuple[Differences, Interval | None]]]
# The first less the second.
COMPARED = (
    ("mpt", "prompt"), ("mpt", "full"), ("mpt", "head"), ("mpt", "mpt_plain"),
    ("mpt", "peft_mpt"), ("mpt_named", "prompt"), ("mpt_named", "full"), ("mpt_named", "mpt"),
    ("mpt_named", "head"),
    ("mpt_text", "mpt"), ("mpt_plain", "mpt_one_speed"),
    ("mpt_plain", "mpt_constant"),
    ("mpt_plain", "prompt"), ("mpt_plain", "peft_mpt"), ("peft_mpt", "prompt"),
    ("prompt", "full"), ("prompt", "head"),
)  # fmt: skip

_HEAD = """\
# Transfer

Made by `make transfer` from `studies/transfer/`; do not edit. The runs are in `runs.jsonl`, and
`python -m studies.transfer --render` makes this page and the chart of them anew.
"""

_QUICK = """
**A quick run. Its numbers mean nothing.**
"""

_METHODS = f"""\

## How it is measured

All methods have the same MiniLM (6 layers, 384 wide, without dropout) and the same rows. All but
*head only* have the same batches and steps, Adam with learning rates that fall to 0 in a line (but
for *constant rates*), and a linear head, of one learning rate for all, on the mean of the user's
tokens: prompts and padding are left out.
Prompts are equally long, and rows cut at {MAX_TOKENS} tokens. *k* is the training rows of each
class, drawn by the seed; *full* is all rows.

"""

_TUNED = """
Learning rates (of the head alone: its decay) are chosen on source tasks that stand for targets, on
rows of their training files that nothing is trained on: the best mean of a grid. What is
transferred to these comes from sources without them, and those sources' own validation rows choose
the learning rate of source training. Nothing is chosen on a target. Rows per class that were not
tuned have the rate of the most below them that were.
"""

_UNTUNED = """
Nothing was tuned: every method has the second rate of its grid.
"""

_LIMITS = """
One training of the sources serves all seeds of the targets, so deviations and intervals there are
those of rows and starts, not of source training. `cola` is scored by Matthews correlation, all else
by accuracy.
"""

_SCORES = """\

## Scores on the targets

In percent. First the means over the targets, of methods that have all targets and seeds; then each
target's mean and standard deviation over seeds.

"""

_DIFFERENCES = """\

## Differences

In points: the mean over targets of what the first method scores more than the second on the same
rows; in brackets the 95% interval of that by Student's t, each target's seeds being draws and the
targets as they are. They speak of the targets shown, not of other tasks. There are many, and none
is widened for that: one in twenty leaves out zero where there is nothing.

"""

_VERDICTS = """\

## What it says

Of the differences above, those whose interval leaves out zero, in points.

"""


def page(entries: Sequence[Entry]) -> str:
    """The page's text.

    Args:
        entries: the log's lines.

    Returns:
        Markdown; it says nothing that the lines do not hold.

    Raises:
        ValueError: runs of several budgets, which do not compare.
    """
    check_one_budget(entries)
    runs = target_runs(entries)
    parts = [_HEAD, _machine(entries)]
    if any(e["settings"]["quick"] for e in entries if e["stage"] == "machine"):
        parts.append(_QUICK)
    parts.append(_METHODS + "".join(f"- *{m.label}*: {m.about}.\n" for m in METHODS.values()))
    parts += [_TUNED if any(e["stage"] == "tune" for e in entries) else _UNTUNED, _LIMITS]
    parts.append(sizes(entries))
    if runs:
        parts += [_held(runs), _SCORES, overview(runs)]
        parts.append(f"\n![Scores against rows per class]({CHART})\n")
        parts += [_score_table(runs, at) for at in shots_of(runs)]
        compared = _compared(runs)
        parts += [_differences(compared), _verdicts(compared), costs(runs)]
    else:
        parts.append("\nNo run on a target is in the log yet.\n")
    parts += [sources(entries), settings(entries, runs)]
    return "".join(parts)


def _machine(entries: Sequence[Entry]) -> str:
    lines = []
    for entry in entries:
        if entry["stage"] == "machine":
            found = entry["settings"]
            threads, packages = found["threads"], in_words(found["packages"])
            lines.append(
                f"\n{found['processor']}, CPU only, threads: {threads},\nwith {packages}.\n"
            )
    return "".join(dict.fromkeys(lines))


def _held(runs: Runs) -> str:
    """Which runs there are, and which are missing beside the rest."""
    entries = [entry for own in runs.values() for entry in own.values()]
    rows = {e["task"]: e["scored_rows"] for e in entries}
    tested = ", ".join(f"{task} {rows[task]}" for task in targets_of(runs))
    lines = [
        f"\nTest rows, a stratified sample where a task has more: {tested}. Runs in the log:\n\n"
    ]
    for at in shots_of(runs):
        targets = _targets_at(runs, at)
        seeds = {s for (_, k, _), own in runs.items() if k == at for s in own}
        wanted = len(targets) * len(seeds)
        counts = {
            m: sum(len(runs.get((m, at, t), {})) for t in targets) for m in METHODS
        }  # fmt: skip
        less = [f"{METHODS[m].label} {n}" for m, n in counts.items() if n < wanted]
        told = f"; fewer than the {wanted} of the others: {', '.join(less)}" if less else ""
        lines.append(f"- {rows_label(at)}: {len(targets)} targets, seeds {len(seeds)}{told}.\n")
    return "".join(lines)


def overview(runs: Runs) -> str:
    """The table of means, which the project's README shows too."""
    shots = shots_of(runs)
    means = {
        (name, at): means_over_targets(runs, name, at, _targets_at(runs, at))
        for name in METHODS
        for at in shots
    }
    seeds = {at: max(len(own) for (_, k), own in means.items() if k == at) for at in shots}
    lines = []
    for name, method in METHODS.items():
        whole = [(means[name, at], seeds[at]) for at in shots]
        # Those of fewer seeds would be compared with the others all the same.
        cells = [f"{100 * statistics.mean(own):.1f}" if len(own) == n else "" for own, n in whole]
        if any(cells):
            lines.append([method.label, *cells])
    return table(["method", *map(rows_label, shots)], lines)


def _targets_at(runs: Runs, shots: int | str) -> list[str]:
    """The targets that any method has runs of."""
    return [t for t in targets_of(runs) if any((m, shots, t) in runs for m in METHODS)]


def _score_table(runs: Runs, shots: int | str) -> str:
    targets = _targets_at(runs, shots)
    lines = []
    for name, method in METHODS.items():
        cells = [percent(scores(runs, name, shots, task)) for task in targets]
        mean = percent(means_over_targets(runs, name, shots, targets))
        if any(cells):
            lines.append([method.label, *cells, mean])
    return f"\n{rows_label(shots)}:\n\n" + table(["method", *targets, "mean"], lines)


def _compared(runs: Runs) -> Compared:
    """Every pair of `COMPARED` that the log can tell of."""
    found: Compared = {}
    for at in shots_of(runs):
        for pair in COMPARED:
            differences = paired_differences(runs, *pair, at)
            if differences:
                found.setdefault(at, {})[pair] = differences, interval(differences)
    return found


def _differences(compared: Compared) -> str:
    lines = []
    for method, other in COMPARED:
        cells = [_difference(*own.get((method, other), ({}, None))) for own in compared.values()]
        if any(cells):
            lines.append([f"{METHODS[method].label} − {METHODS[other].label}", *cells])
    columns = ["difference", *map(rows_label, compared)]
    return _DIFFERENCES + table(columns, lines) if lines else ""


def _difference(differences: Differences, found: Interval | None) -> str:
    tasks = len(differences)
    if not tasks:
        return ""
    if found is None:
        return f"{100 * mean_difference(differences):+.1f} ({tasks} targets, no interval)"
    return difference(found, f"; {tasks} targets")


def _verdicts(compared: Compared) -> str:
    """The differences by their sign, and those that may be of either."""
    lines = []
    for at, pairs in compared.items():
        told: dict[str, list[str]] = {"ahead": [], "not told apart": []}
        for (method, other), (_, found) in pairs.items():
            if found is None:
                continue
            names = METHODS[method].label, METHODS[other].label
            mean, low, high = (100 * value for value in found)
            if low <= 0 <= high:
                told["not told apart"].append(f"{names[0]} and {names[1]}")
            else:
                first, second = names if mean > 0 else names[::-1]
                told["ahead"].append(f"{first} of {second} by {abs(mean):.1f}")
        shown = [f"{name}: {', '.join(which)}" for name, which in told.items() if which]
        if shown:
            lines.append(f"- {rows_label(at)}: {'; '.join(shown)}.\n")
    return _VERDICTS + "".join(lines) if lines else ""
