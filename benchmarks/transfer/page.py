"""From the log to docs/benchmarks/transfer/README.md."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.transfer import data
from benchmarks.transfer.chart import CHART
from benchmarks.transfer.job import Method
from benchmarks.transfer.log import Entry
from benchmarks.transfer.methods import METHODS
from benchmarks.transfer.scores import BY_MATTHEWS
from benchmarks.transfer.summary import (
    RESAMPLES,
    Runs,
    in_order,
    interval,
    mean_and_deviation,
    mean_difference,
    means_over_targets,
    paired_differences,
    scores,
    target_runs,
    tuning_scores,
)
from benchmarks.transfer.workbench import MAX_TOKENS

Differences = dict[str, list[float]]
Interval = tuple[float, float, float]
# Rows per class, then pair of methods: their differences, and the interval of these.
Compared = dict[int | str, dict[tuple[str, str], tuple[Differences, Interval | None]]]
# The first less the second.
COMPARED = (
    ("mpt", "prompt"), ("mpt", "full"), ("mpt", "head"), ("mpt", "mpt_plain"),
    ("mpt", "peft_mpt"), ("mpt_named", "prompt"), ("mpt_named", "full"), ("mpt_named", "mpt"),
    ("mpt_text", "mpt"), ("mpt_plain", "mpt_one_speed"),
    ("mpt_plain", "mpt_constant"),
    ("mpt_plain", "prompt"), ("mpt_plain", "peft_mpt"), ("peft_mpt", "prompt"),
    ("prompt", "full"), ("prompt", "head"),
)  # fmt: skip

_HEAD = """\
# Transfer

Made by `make transfer` from `benchmarks/transfer/`; do not edit. The runs are in `runs.jsonl`, and
`python -m benchmarks.transfer --render` makes this page and the chart of them anew.
"""

_QUICK = """
**A quick run. Its numbers mean nothing.**
"""

_METHODS = f"""\

## How it is measured

All methods have the same MiniLM (6 layers, 384 wide, without dropout) and the same rows. All but
*head only* have the same batches and steps, Adam with learning rates that fall to 0 in a line, and
a linear head, of one learning rate for all, on the mean of the user's tokens: prompts and padding
are left out.
Prompts are equally long, and rows cut at {MAX_TOKENS} tokens. *k* is the training rows of each
class, drawn by the seed; *full* is all rows.

"""

_TUNED = """
Learning rates (of the head alone: its decay) are chosen on source tasks that stand for targets, on
rows of their training files that nothing is trained on: the best mean of a grid of four. What is
transferred to these comes from sources without them, and those sources' own validation rows choose
the learning rate of source training. Nothing is chosen on a target.
"""

_UNTUNED = """
Nothing was tuned: every method has the second rate of its grid.
"""

_LIMITS = """
One training of the sources serves all seeds, so deviations and intervals are those of rows and
starts, not of source training. `cola` is scored by Matthews correlation, all else by accuracy.
"""

_SCORES = """\

## Scores on the targets

Mean and standard deviation over seeds, in percent. *Mean* is that over the targets, where a method
has all of them.
"""

_DIFFERENCES = f"""\

## Differences

In points: the mean over targets of what the first method scores more than the second on the same
rows; in brackets the 95% interval of {RESAMPLES:,} resamples of the seeds within each target.
They speak of the targets shown, not of other tasks, and with so few seeds they are rather too
narrow than too wide.

"""

_VERDICTS = """\

## What it says

Of the differences above, those whose interval leaves out zero, in points.

"""

_COSTS = """\

## Costs on a target

Numbers that are trained for one task, head included, and the median seconds of a training{on}. The
head's are without its features, where another run has computed them.

"""

_SOURCES = """\

## The sources together

Test scores after training on all sources, in percent, and the seconds of it.

"""

_CHOSEN = """\

## Settings

The rate of each method's runs above, and what the grid scored in percent: the mean of validation
scores on the pseudo-targets, and of how many runs; of source training, the mean over the sources.

"""


def page(entries: Sequence[Entry]) -> str:
    """The page's text.

    Args:
        entries: the log's lines.

    Returns:
        Markdown; it says nothing that the lines do not hold.
    """
    runs = target_runs(entries)
    parts = [_HEAD, _machine(entries)]
    if any(e["settings"]["quick"] for e in entries if e["stage"] == "machine"):
        parts.append(_QUICK)
    parts.append(_METHODS + "".join(f"- *{m.label}*: {m.about}.\n" for m in METHODS.values()))
    parts += [_TUNED if any(e["stage"] == "tune" for e in entries) else _UNTUNED, _LIMITS]
    if runs:
        parts += [_held(runs), _SCORES, f"\n![Scores against rows per class]({CHART})\n"]
        parts += [_score_table(runs, at) for at in _shots(runs)]
        compared = _compared(runs)
        parts += [_differences(compared), _verdicts(compared), _costs(runs)]
    else:
        parts.append("\nNo run on a target is in the log yet.\n")
    parts += [_sources(entries), _chosen(entries, runs)]
    return "".join(parts)


def _machine(entries: Sequence[Entry]) -> str:
    lines = []
    for entry in entries:
        if entry["stage"] == "machine":
            found = entry["settings"]
            packages = ", ".join(f"{name} {value}" for name, value in found["packages"].items())
            threads = f"threads: {found['threads']}"
            lines.append(f"\n{found['processor']}, CPU only, {threads},\nwith {packages}.\n")
    return "".join(dict.fromkeys(lines))


def _held(runs: Runs) -> str:
    """Which runs there are, and which are missing beside the rest."""
    entries = [entry for own in runs.values() for entry in own.values()]
    rows = {e["task"]: e["scored_rows"] for e in entries}
    tested = ", ".join(f"{task} {rows[task]}" for task in _targets(runs))
    lines = [
        f"\nTest rows, a stratified sample where a task has more: {tested}. Runs in the log:\n\n"
    ]
    for at in _shots(runs):
        targets = [t for t in _targets(runs) if any((m, at, t) in runs for m in METHODS)]
        seeds = {s for (_, k, _), own in runs.items() if k == at for s in own}
        wanted = len(targets) * len(seeds)
        counts = {
            m: sum(len(runs.get((m, at, t), {})) for t in targets) for m in METHODS
        }  # fmt: skip
        less = [f"{METHODS[m].label} {n}" for m, n in counts.items() if n < wanted]
        told = f"; fewer than the {wanted} of the others: {', '.join(less)}" if less else ""
        lines.append(f"- {_at(at)}: {len(targets)} targets, seeds {len(seeds)}{told}.\n")
    return "".join(lines)


def _score_table(runs: Runs, shots: int | str) -> str:
    targets = [t for t in _targets(runs) if any((m, shots, t) in runs for m in METHODS)]
    lines = []
    for name, method in METHODS.items():
        cells = [_percent(scores(runs, name, shots, task)) for task in targets]
        mean = _percent(means_over_targets(runs, name, shots, targets))
        if any(cells):
            lines.append([method.label, *cells, mean])
    return f"\n{_at(shots)}:\n\n" + _table(["method", *targets, "mean"], lines)


def _compared(runs: Runs) -> Compared:
    """Every pair of `COMPARED` that the log can tell of."""
    found: Compared = {}
    for at in _shots(runs):
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
    columns = ["difference", *map(_at, compared)]
    return _DIFFERENCES + _table(columns, lines) if lines else ""


def _difference(differences: Differences, found: Interval | None) -> str:
    tasks = len(differences)
    if not tasks:
        return ""
    if found is None:
        return f"{100 * mean_difference(differences):+.1f} ({tasks} targets, no interval)"
    mean, low, high = (100 * value for value in found)
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}; {tasks} targets)"


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
            lines.append(f"- {_at(at)}: {'; '.join(shown)}.\n")
    return _VERDICTS + "".join(lines) if lines else ""


def _costs(runs: Runs) -> str:
    shots = _shots(runs)
    # They differ from task to task by the head.
    everything = {t: e["parameters"] for (m, _, t), own in runs.items() for e in own.values()
                  if m == "full"}  # fmt: skip
    # Seconds of other numbers of threads do not compare: those of most runs are shown.
    counted = collections.Counter(e.get("threads") for own in runs.values() for e in own.values())
    threads = counted.most_common(1)[0][0]
    lines = []
    for name, method in METHODS.items():
        own = [e for (m, _, _), found in runs.items() if m == name for e in found.values()]
        if not own:
            continue
        counts = [entry["parameters"] for entry in own]
        shares = [e["parameters"] / everything[e["task"]] for e in own if e["task"] in everything]
        share = f"{100 * max(shares):.3g}%" if shares else ""
        timed = [entry for entry in own if entry.get("threads") == threads]
        seconds = [[e["seconds"] for e in timed if e["shots"] == at] for at in shots]
        cells = [f"{statistics.median(values):.1f} s" if values else "" for values in seconds]
        low, high = f"{min(counts):,}", f"{max(counts):,}"
        lines.append([method.label, low if low == high else f"{low} to {high}", share, *cells])
    columns = ["method", "numbers trained", "of full fine-tuning's, at most", *map(_at, shots)]
    on = "" if threads is None else f" with threads: {threads}"
    return _COSTS.format(on=on) + _table(columns, lines)


def _sources(entries: Sequence[Entry]) -> str:
    found = {e["method"]: e for e in entries if e["stage"] == "sources"}
    if not found:
        return ""
    present = {task for e in found.values() for task in e["scores"]}
    tasks = [task for task in data.SOURCES if task in present]
    named = [f"{task} (Matthews)" if task in BY_MATTHEWS else task for task in tasks]
    lines = []
    for name, entry in _by_method(found):
        cells = [f"{100 * entry['scores'][t]:.1f}" if t in entry["scores"] else "" for t in tasks]
        settings = entry["settings"]
        costs = [f"{settings['steps']:,}", f"{settings['rate']:g}", f"{entry['seconds']:.0f} s"]
        teachers = _teacher_seconds(entries, entry)
        if teachers:
            costs[-1] += f" and {teachers:.0f} s for the teachers"
        lines.append([METHODS[name].label, *cells, f"{100 * entry['score']:.1f}", *costs])
    columns = ["method", *named, "mean", "steps", "rate", "training"]
    return _SOURCES + _table(columns, lines)


def _teacher_seconds(entries: Sequence[Entry], run: Entry) -> float:
    """Of all runs that have the same teachers: whichever came first trained each of them."""
    alike = [
        e.get("teacher_seconds", 0.0)
        for e in entries
        if all(
            e["settings"].get(name) == run["settings"].get(name)
            for name in ("teacher_epochs", "rows", "virtual_tokens")
        )
    ]
    return sum(alike) if "teacher_seconds" in run else 0.0


def _chosen(entries: Sequence[Entry], runs: Runs) -> str:
    lines = []
    for name, method in METHODS.items():
        own = [e for e in entries if e["stage"] == "sources" and e["method"] == name]
        lines += _settings(method, "sources", own[-1:], tuning_scores(entries, name))
        for at in _shots(runs):
            own = [e for (m, k, _), found in runs.items() if (m, k) == (name, at)
                   for e in found.values()]  # fmt: skip
            tried = tuning_scores(entries, method.tuned_method.name, at)
            lines += _settings(method, _at(at), own, tried)
    columns = ["method", "rows", "what", "used", "steps", "grid"]
    return _CHOSEN + _table(columns, lines) if lines else ""


def _settings(
    method: Method, rows: str, own: Sequence[Entry], tried: dict[float, list[float]]
) -> list[list[str]]:
    """A line of `_chosen`, or none where there are no such runs."""
    if not own:
        return []
    used, taken = (
        ", ".join(f"{value:g}" for value in sorted({e["settings"][what] for e in own}))
        for what in ("rate", "steps")
    )
    shown = "; ".join(
        f"{rate:g}: {100 * statistics.mean(values):.1f} of {len(values)}"
        for rate, values in tried.items()
    )
    return [[method.label, rows, method.tuned, used, taken, shown or "not tuned"]]


def _shots(runs: Runs) -> list[int | str]:
    return in_order(at for _, at, _ in runs)


def _targets(runs: Runs) -> list[str]:
    present = {task for _, _, task in runs}
    return [task for task in data.TARGETS if task in present]


def _by_method(found: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, found[name]) for name in METHODS if name in found)


def _at(shots: int | str) -> str:
    return "full" if isinstance(shots, str) else f"k = {shots}"


def _percent(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, deviation = mean_and_deviation(values)
    return f"{100 * mean:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [columns, ["---"] * len(columns), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
