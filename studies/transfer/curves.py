"""Scores on the way of a training: is what transfers also faster?"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from studies.transfer.cells import rows_label
from studies.transfer.log import Entry
from studies.transfer.part import Part
from studies.transfer.summary import Runs, shots_of
from studies.transfer.validity import valid_targets
from tools.charts import chart, legend_below
from tools.markdown import table

# Of steps: mean scores.
Curve = dict[int, float]

_HEAD = """\

### Accuracy against steps

In percent, the mean over the targets that count and the seeds, on the same {rows} test rows of each
at every step; of methods that have all of these runs. Seconds on the way are not counted anywhere.
"""


def mean_curve(part: Part, runs: Runs, method: str, shots: int | str) -> Curve:
    """The mean over targets and seeds; empty where a target has no run with a curve."""
    found = []
    for task in valid_targets(part, runs):
        curves = [e["curve"] for e in runs.get((method, shots, task), {}).values() if "curve" in e]
        if curves:
            found.append(_mean([_by_step(curve) for curve in curves]))
        elif any((m, shots, task) in runs and _has_curve(runs, m, shots, task) for m in
                 part.methods):  # fmt: skip
            return {}
    return _mean(found) if found else {}


def steps_to(curve: Curve, score: float) -> float | None:
    """The first step, in a straight line between those that were looked at, with such a score."""
    before: tuple[int, float] | None = None
    for step, value in sorted(curve.items()):
        if value >= score:
            if before is None or value == before[1]:
                return float(step)
            share = (score - before[1]) / (value - before[1])
            return before[0] + share * (step - before[0])
        before = step, value
    return None


def curves(part: Part, runs: Runs) -> str:
    """A table for each number of rows."""
    found = [_table(part, runs, at) for at in shots_of(runs)]
    if not any(found):
        return ""
    rows = {e["settings"]["watched_rows"] for own in runs.values() for e in own.values()
            if "curve" in e}  # fmt: skip
    return _HEAD.format(rows=max(rows)) + "".join(found)


def _table(part: Part, runs: Runs, shots: int | str) -> str:
    own = {name: mean_curve(part, runs, name, shots) for name in part.methods}
    steps = sorted({step for curve in own.values() for step in curve})
    lines = [
        [part.methods[name].label, *(_cell(curve.get(step)) for step in steps), _losses(losses)]
        for name, curve in own.items()
        if curve
        for losses in [_last_losses(runs, name, shots)]
    ]
    if not lines:
        return ""
    columns = ["method", *(f"step {step}" for step in steps), "training loss, last two parts"]
    return f"\n{rows_label(shots)}:\n\n" + table(columns, lines)


def draw_curves(part: Part, runs: Runs, file: Path) -> bool:
    """A panel for each number of rows; says whether there was anything to draw."""
    shots = [at for at in shots_of(runs) if any(mean_curve(part, runs, m, at) for m in
             part.methods)]  # fmt: skip
    if not shots:
        return False
    size = (4.2 * len(shots), 4.4)
    with chart(file, 1, len(shots), figsize=size, squeeze=False) as (figure, grid):
        for axes, at in zip(grid[0], shots, strict=True):
            for name, method in part.methods.items():
                curve = sorted(mean_curve(part, runs, name, at).items())
                if curve:
                    colour, line, marker = part.styles[name]
                    axes.plot(
                        [step for step, _ in curve], [score for _, score in curve], color=colour,
                        linestyle=line, marker=marker, markersize=4, linewidth=1.4,
                        label=method.label,
                    )  # fmt: skip
            axes.set_title(rows_label(at))
            axes.set_xlabel("steps")
        grid[0][0].set_ylabel("mean score")
        legend_below(figure, columns=4)
    return True


def _has_curve(runs: Runs, method: str, shots: int | str, task: str) -> bool:
    return any("curve" in entry for entry in runs[method, shots, task].values())


def _by_step(pairs: Sequence[Sequence[float]]) -> Curve:
    return {int(step): score for step, score in pairs}


def _mean(found: Sequence[Curve]) -> Curve:
    """Of the steps that all have."""
    steps = set.intersection(*(set(curve) for curve in found))
    return {step: statistics.mean(curve[step] for curve in found) for step in sorted(steps)}


def _last_losses(runs: Runs, method: str, shots: int | str) -> list[list[float]]:
    own: list[Entry] = [e for (m, k, _), found in runs.items() if (m, k) == (method, shots)
                        for e in found.values()]  # fmt: skip
    return [[loss for _, loss in e["losses"]][-2:] for e in own if len(e.get("losses", [])) > 1]


def _losses(found: Sequence[Sequence[float]]) -> str:
    return " → ".join(f"{statistics.mean(values):.2f}" for values in zip(*found, strict=True))


def _cell(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
