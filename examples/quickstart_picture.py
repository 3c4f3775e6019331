"""The picture that `quickstart.py` ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def draw(
    rows: list[dict[str, Any]],
    history: dict[str, list[float]],
    prompt: Any,
    names: list[str],
    path: Path,
) -> Path:
    """Three panels: what prompts add per task, how tasks learn together, how alike they became.

    Args:
        rows: the table's lines.
        history: of `fit`.
        prompt: the trained `MultitaskPromptEmbedding`.
        names: of the source tasks.
        path: where the PNG goes.
    """
    import matplotlib

    matplotlib.use("Agg")  # No screen is needed to write a file.
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        1, 3, figsize=(15, 4.6), width_ratios=[1.35, 1, 0.95], layout="constrained"
    )
    _accuracies(axes[0], rows)
    _curves(axes[1], history, names)
    _similarities(axes[2], prompt, names)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _accuracies(axis: Any, rows: list[dict[str, Any]]) -> None:
    styles = {"majority": "#b8b8b8", "head": "#5b8fc9", "prompts": "#d9541e"}
    labels = {"majority": "majority class", "head": "head only", "prompts": "with prompts"}
    for y, row in enumerate(rows):
        low, high = (f(row[k] for k in styles) for f in (min, max))
        axis.plot([low, high], [y, y], color="#e3e3e3", linewidth=3, zorder=1)
        for key, color in styles.items():
            label = labels[key] if y == 0 else None
            axis.scatter(row[key], y, s=90, color=color, label=label, zorder=2)
        axis.annotate(
            f"{row['prompts']:.2f}", (row["prompts"], y), (0, 9), textcoords="offset points",
            ha="center", color=styles["prompts"], fontsize=9,
        )  # fmt: skip
    axis.set_yticks(range(len(rows)), [row["task"] for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_title("Test accuracy on one frozen backbone", loc="left")
    axis.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.07))
    _plain(axis)


def _curves(axis: Any, history: dict[str, list[float]], names: list[str]) -> None:
    for name in names:
        values = history[f"{name}_accuracy"]
        axis.plot(range(1, len(values) + 1), values, marker="o", label=name)
    axis.set_xticks(range(1, len(history["loss"]) + 1))
    axis.set_xlabel("epoch")
    axis.set_title("Training accuracy, all tasks in one fit", loc="left")
    axis.legend(frameon=False)
    _plain(axis)


def _similarities(axis: Any, prompt: Any, names: list[str]) -> None:
    """Cosine of what each task changed: W_k − 1 is how its prompt departs from the shared one."""
    state = prompt.get_peft_state_dict()
    scales = state["prefix_task_cols"] @ state["prefix_task_rows"] - 1
    flat = scales.reshape(len(names), -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    cosines = flat @ flat.T
    axis.imshow(cosines, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axis.set_yticks(range(len(names)), names)
    for i in range(len(names)):
        for j in range(len(names)):
            color = "white" if abs(cosines[i, j]) > 0.6 else "black"
            axis.text(j, i, f"{cosines[i, j]:.2f}", ha="center", va="center", color=color)
    axis.set_title("How alike the tasks' prompts became", loc="left")


def _plain(axis: Any) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.grid(alpha=0.3)
