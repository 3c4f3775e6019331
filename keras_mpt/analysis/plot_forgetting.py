"""Each task at its best and now."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from keras_mpt.analysis.figure import PLAIN, TEXT_COLOR, new_figure, number, plain, saved, title
from keras_mpt.analysis.forgetting import Scores, best_scores, forgetting

_LOST, _KEPT = "#D55E00", "#0072B2"


def plot_forgetting(
    earlier: Scores | Sequence[Scores],
    now: Scores,
    mode: str = "max",
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draws each task's best earlier score and its score now, with `forgetting` beside them.

    Args:
        earlier: dict of task name to score, or a list of such dicts, such as a
            `ForgettingMonitor`'s `scores[:-1]`.
        now: dict of task name to score, such as a `ForgettingMonitor`'s `scores[-1]`.
        mode: `"max"`, or `"min"` for a score that is better when smaller. Defaults to `"max"`.
        path: string. Where to save the picture; the ending says as what. `None` does not save it.
            Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`. Tasks without an earlier score are left out.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: as in `forgetting`.

    Example:
        ```python
        earlier, now = {"tone": 0.9, "topic": 0.7}, {"tone": 0.6, "topic": 0.8, "new": 0.9}
        figure = keras_mpt.analysis.plot_forgetting(earlier, now, path=tmp_path / "forgetting.png")
        assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["tone", "topic"]
        ```
    """
    best, lost = best_scores(earlier, now, mode), forgetting(earlier, now, mode)
    figure = new_figure("plot_forgetting", 6.4, 0.26 * len(best) + 1.4)
    axis = figure.subplots()
    rows, tasks = range(len(best)), list(best)
    colors = [_LOST if lost[task] > 0 else _KEPT for task in tasks]
    scores = [now[task] for task in tasks]
    axis.hlines(rows, list(best.values()), scores, colors=colors, linewidth=2, zorder=1)
    circles = {"s": 46, "linewidths": 1.6, "edgecolors": colors, "zorder": 2}
    axis.scatter(list(best.values()), rows, facecolors="white", label="best before", **circles)
    axis.scatter(scores, rows, facecolors=colors, label="now", **circles)
    for row, task in enumerate(tasks):
        text = number(lost[task], "+.3f")
        axis.annotate(text, (1.02, row), xycoords=axis.get_yaxis_transform(), va="center", **PLAIN)
    axis.annotate("forgetting", (1.02, -0.9), xycoords=axis.get_yaxis_transform(), **PLAIN)
    axis.set_yticks(rows, tasks, **PLAIN)
    axis.set_ylim(len(tasks) - 0.4, -0.6)
    axis.set_xlabel("score" if mode == "max" else "score (smaller is better)", **PLAIN)
    title(axis, "What tasks forgot")
    plain(axis)
    legend = figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    for handle in legend.legend_handles:
        handle.set_edgecolor(TEXT_COLOR)
    legend.legend_handles[1].set_facecolor(TEXT_COLOR)
    return saved(figure, path)
