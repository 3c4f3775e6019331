"""Scores against the rows per class, as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.transfer.data import TARGETS
from benchmarks.transfer.methods import METHODS
from benchmarks.transfer.summary import (
    Runs,
    in_order,
    mean_and_deviation,
    means_over_targets,
    scores,
)

CHART = "transfer.svg"
# Distinct for colour-blind readers too; ours are full lines, the rest are broken.
STYLES = {
    "head": ("#999999", ":", "s"),
    "prompt": ("#56B4E9", "--", "^"),
    "mpt_one_speed": ("#D55E00", "-", "<"),
    "mpt_constant": ("#8C564B", "-", ">"),
    "mpt_plain": ("#009E73", "-", "v"),
    "mpt": ("#0072B2", "-", "o"),
    "mpt_named": ("#B22222", "-", "*"),
    "mpt_text": ("#CC79A7", "-", "D"),
    "peft_mpt": ("#444444", "--", "P"),
    "full": ("#E69F00", "-.", "X"),
}


def draw(runs: Runs, file: Path) -> None:
    """A panel for the mean over targets, and one for each target."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shots = in_order(at for _, at, _ in runs)
    present = {task for _, _, task in runs}
    targets = [task for task in TARGETS if task in present]
    panels = (["mean over targets"] if len(targets) > 1 else []) + targets
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    # The same file of the same numbers, with text that can be searched.
    style = {"svg.fonttype": "none", "svg.hashsalt": "keras_mpt", "font.size": 11}
    with pyplot.rc_context(style):
        figure, grid = pyplot.subplots(
            lines, columns, figsize=(3.6 * columns, 3.0 * lines + 0.6), squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for axes, panel in zip(grid.flat, panels, strict=False):
            is_mean = panel not in targets
            for i, method in enumerate(METHODS):
                values = {
                    at: means_over_targets(runs, method, at, targets)
                    if is_mean
                    else scores(runs, method, at, panel)
                    for at in shots
                }
                _line(axes, method, values, (i - len(METHODS) / 2) * 0.05)
            axes.set_title(panel, fontsize=11)
            axes.set_xticks(range(len(shots)), [str(at) for at in shots])
            axes.spines[["top", "right"]].set_visible(False)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        for row in grid:
            row[0].set_ylabel("score")
        for axes in grid[-1]:
            axes.set_xlabel("rows per class")
        labelled = {}
        for axes in grid.flat:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                labelled.setdefault(label, handle)
        figure.legend(
            list(labelled.values()), list(labelled), loc="outside lower center",
            ncols=min(4, max(1, len(labelled))), frameon=False,
        )  # fmt: skip
        figure.savefig(file, metadata={"Date": None}, bbox_inches="tight")
        pyplot.close(figure)


def _line(axes: Any, method: str, values: dict[Any, list[float]], shift: float) -> None:
    """A method's means, with a standard deviation to either side."""
    found = [(i, *mean_and_deviation(own)) for i, own in enumerate(values.values()) if own]
    if not found:
        return
    colour, line, marker = STYLES[method]
    axes.errorbar(
        [i + shift for i, _, _ in found],
        [mean for _, mean, _ in found],
        yerr=[deviation or 0.0 for _, _, deviation in found],
        color=colour, linestyle=line, marker=marker, markersize=5, linewidth=1.4, elinewidth=0.8,
        label=METHODS[method].label,
    )  # fmt: skip
