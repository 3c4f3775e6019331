"""Scores against the rows per class, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studies.transfer.part import Part
from studies.transfer.summary import (
    Runs,
    mean_and_deviation,
    means_over_targets,
    scores,
    shots_of,
    targets_of,
)
from studies.transfer.validity import valid_targets
from tools.charts import chart, legend_below

MEAN = "mean over targets"


def draw(part: Part, runs: Runs, file: Path) -> None:
    """A panel for the mean over targets, and one for each target."""
    shots, targets = shots_of(runs), targets_of(runs, part.targets)
    valid = valid_targets(part, runs)
    panels = ([MEAN] if len(valid) > 1 else []) + targets
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    size = (3.6 * columns, 3.0 * lines + 0.6)
    with chart(file, lines, columns, figsize=size, squeeze=False) as (figure, grid):
        for axes, panel in zip(grid.flat, panels, strict=False):
            is_mean = panel not in targets
            for i, method in enumerate(part.methods):
                values = {
                    at: means_over_targets(runs, method, at, valid)
                    if is_mean
                    else scores(runs, method, at, panel)
                    for at in shots
                }
                _line(axes, part, method, values, (i - len(part.methods) / 2) * 0.03)
            axes.set_title(panel)
            axes.set_xticks(range(len(shots)), [str(at) for at in shots])
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        for row in grid:
            row[0].set_ylabel("score")
        for axes in grid[-1]:
            axes.set_xlabel("rows per class")
        legend_below(figure, columns=4)


def _line(axes: Any, part: Part, method: str, values: dict[Any, list[float]], shift: float) -> None:
    """A method's means, with a standard deviation to either side."""
    found = [(i, *mean_and_deviation(own)) for i, own in enumerate(values.values()) if own]
    if not found:
        return
    colour, line, marker = part.styles[method]
    axes.errorbar(
        [i + shift for i, _, _ in found],
        [mean for _, mean, _ in found],
        yerr=[deviation or 0.0 for _, _, deviation in found],
        color=colour, linestyle=line, marker=marker, markersize=5, linewidth=1.4, elinewidth=0.8,
        label=part.methods[method].label,
    )  # fmt: skip
