"""The charts of docs/benchmarks/, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import Parts, Run, chart_of, least_seconds, lettered, peak, together
from benchmarks.timing import middle, ratios, spread
from tools.charts import chart, legend_below

# Distinct for colour-blind readers too, and in the order of the tables.
COLOURS = {"tensorflow": "#E69F00", "jax": "#0072B2", "torch": "#009E73"}
PEFT = "#444444"


def draw(reports: Sequence[dict[str, Any]], folder: Path) -> None:
    """Writes the charts of the parts that each machine measured."""
    # Letters may have changed.
    for part in ("training", "tasks"):
        for old in folder.glob(f"{part}*.svg"):
            old.unlink()
    for letter, report in lettered(reports).items():
        parts = together({"": report})
        if "training" in parts:
            _training(parts, folder / chart_of("training", letter))
        if "tasks" in parts:
            _tasks(parts, folder / chart_of("tasks", letter))


def _training(parts: Parts, file: Path) -> None:
    """Bars: PEFT's time divided by ours. Marks: by that of the least arithmetic."""
    results = parts["training"]
    cases = [row["case"] for row in next(iter(results.values()))["rows"]]
    thickness = 0.8 / len(results)
    with chart(file, figsize=(9, 0.85 * len(cases) + 1.2)) as (figure, axes):
        for i, (run, result) in enumerate(results.items()):
            for k, row in enumerate(result["rows"]):
                s, place = row["seconds"], k + (i - (len(results) - 1) / 2) * thickness
                value, low, high = spread(ratios(s["peft"], s["ours"]))
                axes.barh(
                    place, value, 0.9 * thickness, color=COLOURS[run.backend],
                    label=run.label if k == 0 else None,
                )  # fmt: skip
                axes.plot([low, high], [place, place], color="black", linewidth=1)
                least = least_seconds(s)
                if least is not None:
                    axes.plot(
                        middle(ratios(s["peft"], least)), place, "|", color="#CC3311",
                        markersize=12, markeredgewidth=2,
                        label="least arithmetic" if i == k == 0 else None,
                    )  # fmt: skip
        axes.axvline(1, color=PEFT, linewidth=1.2)
        axes.annotate(
            "PEFT", (1, 1), (3, 3), ("data", "axes fraction"), "offset points", color=PEFT
        )
        axes.set_yticks(range(len(cases)), cases)
        axes.invert_yaxis()
        axes.set_xlabel("times as fast as PEFT in a step of training (line: smallest to largest)")
        legend_below(figure, columns=len(results) + 1)


def _tasks(parts: Parts, file: Path) -> None:
    """Lines against T: the step's time, and peak memory where it was measured."""
    results = {run: found["rows"] for run, found in parts["tasks"].items()}
    memory = parts.get("memory", {})
    first = next(iter(results.values()))
    tasks = [row["tasks"] for row in first]
    with chart(file, columns=2, figsize=(10, 4.2)) as (figure, (left, right)):
        theirs = [middle(row["seconds"]["peft"]) for row in first]
        left.plot(tasks, theirs, "s--", color=PEFT, label="PEFT")
        _plot_memory(right, tasks, memory, Run("torch"), "peft", "s--", PEFT)
        for run, rows in results.items():
            colour = COLOURS[run.backend]
            left.plot(
                tasks, [middle(r["seconds"]["ours"]) for r in rows], "o-", color=colour,
                label=run.label,
            )  # fmt: skip
            if all("sparse" in row["seconds"] for row in rows):
                left.plot(
                    tasks, [middle(r["seconds"]["sparse"]) for r in rows], ".-.", color=colour,
                    label=f"sparse, {run.label}",
                )  # fmt: skip
            left.plot(
                tasks, [middle(r["seconds"]["adam"]) for r in rows], "x:", color=colour,
                label=f"Adam alone, {run.label}",
            )  # fmt: skip
            _plot_memory(right, tasks, memory, run, "ours", "o-", colour)
        for axes, title in ((left, "a step, seconds"), (right, "peak memory of a step, MiB")):
            axes.set_xscale("log")
            axes.set_xticks(tasks, [f"{count:,}" for count in tasks])
            axes.minorticks_off()
            axes.set_ylim(bottom=0)
            axes.set_xlabel("tasks")
            axes.set_title(title)
        legend_below(figure, columns=4)


def _plot_memory(
    axes: Any, tasks: list[int], memory: Any, run: Run, side: str, style: str, colour: str
) -> None:
    found = [(count, peak(memory, run, f"T {count}", side)) for count in tasks]
    known = [(count, value / 2**20) for count, value in found if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), style, color=colour)
