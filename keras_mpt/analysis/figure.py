"""What the pictures share: a figure outside pyplot's global state, colours, and labels."""

from __future__ import annotations

import functools
import io
import math
import os
import warnings
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

# Okabe and Ito's colours but yellow and black, and two of Tol's: told apart by colour-blind people.
COLORS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#332288",
)
MARKERS = "os^Dv"
TEXT_COLOR = "#222222"
FONT_SIZE = 9
# Names and tokens are shown as they are: "$" in them starts no formula.
PLAIN = {"parse_math": False, "fontsize": FONT_SIZE, "color": TEXT_COLOR}


def new_figure(function: str, width: float, height: float) -> Any:
    """An empty figure.

    Args:
        function: string. Who needs it, for the message where Matplotlib is missing.
        width: float. Inches.
        height: float. Inches.

    Returns:
        A `matplotlib.figure.Figure` that pyplot does not know of.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            f"`{function}` needs Matplotlib: `pip install keras-mpt[plot]`."
        ) from error
    figure: Any = Figure(figsize=(width, height), layout="constrained")
    # A notebook shows what has this; it asks pyplot for others, which does not know the figure.
    figure._repr_png_ = functools.partial(as_png, figure)
    return figure


def as_png(figure: Any) -> bytes:
    """The figure as the bytes of a PNG file."""
    file = io.BytesIO()
    saved(figure, file)
    return file.getvalue()


def saved(figure: Any, path: str | os.PathLike[str] | IO[bytes] | None) -> Any:
    """The figure, after writing it to `path` where one is given."""
    if path is not None:
        with warnings.catch_warnings():
            # A vocabulary has signs that Matplotlib's font lacks: a box is drawn for each.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(path, dpi=150)
    return figure


def plain(axis: Any) -> None:
    """Takes away what carries no data."""
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=FONT_SIZE)
    axis.grid(alpha=0.3)


def number(value: float, form: str) -> str:
    """A number as text: a dash for NaN, no negative zero, and a minus that is one."""
    if math.isnan(value):
        return "–"
    text = format(value, form)
    return text.lstrip("-") if float(text) == 0 and "+" not in form else text.replace("-", "−")


def title(axis: Any, text: str) -> None:
    """A title at the left."""
    axis.set_title(text, loc="left", fontsize=FONT_SIZE + 1, color=TEXT_COLOR, parse_math=False)


def shaded_table(
    axis: Any, values: np.ndarray, texts: Sequence[Sequence[str]], colors: str, low: float
) -> None:
    """Cells whose shade is their value and whose text is given.

    Args:
        axis: Matplotlib axes.
        values: float array (rows, columns), at most 1. NaN is grey.
        texts: their texts.
        colors: string. Name of a colour map.
        low: float. The value at the map's lower end; 1 is at its upper end.
    """
    import matplotlib

    color_map = matplotlib.colormaps[colors].with_extremes(bad="#eeeeee")
    image = axis.imshow(values, cmap=color_map, vmin=low, vmax=1, aspect="auto")
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            shade = image.cmap(image.norm(values[i, j])) if np.isfinite(values[i, j]) else (1, 1, 1)
            color = "white" if _luminance(shade) < 0.2 else TEXT_COLOR
            axis.text(j, i, text, ha="center", va="center", **PLAIN | {"color": color})
    # White lines between the cells.
    axis.set_xticks(np.arange(values.shape[1] + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(values.shape[0] + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_visible(False)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Positions with at least `gap` between them, as near to the wanted ones as can be.

    With the i-th, by size, moved down by i · gap, they need only not fall: runs that would are
    replaced by their mean.

    Args:
        wanted: floats.
        gap: float.
        low: float. The least position.
        high: float. The greatest; passed only where there is no room.

    Returns:
        A float array, in the order of `wanted`.
    """
    order = np.argsort(wanted, kind="stable")
    runs: list[list[float]] = []
    for i, place in enumerate(order):
        runs.append([wanted[place] - i * gap])
        while len(runs) > 1 and np.mean(runs[-2]) > np.mean(runs[-1]):
            last = runs.pop()
            runs[-1] += last
    flat = [float(np.mean(run)) for run in runs for _ in run]
    room = max(low, high - (len(order) - 1) * gap)
    positions = np.zeros(len(order))
    positions[order] = np.clip(flat, low, room) + gap * np.arange(len(order))
    return positions


def label_ends(
    axis: Any, names: Sequence[str], ends: Sequence[tuple[float, float]], colors: Sequence[str]
) -> None:
    """Names at the right of the axes, each with a thin line to the end of its curve.

    Args:
        axis: Matplotlib axes with its curves.
        names: strings.
        ends: pairs of x and y, where the curves end.
        colors: the curves' colours.
    """
    low, high = axis.get_ylim()
    axis.set_ylim(low, high)
    # About what the title and the labels below leave of the figure's height.
    line_height = FONT_SIZE * 1.25 / (72 * (axis.figure.get_figheight() - 0.9))
    places = spread([y for _, y in ends], line_height * (high - low), low, high)
    for name, end, place, color in zip(names, ends, places, colors, strict=True):
        axis.annotate(
            name,
            end,
            (1.05, place),
            textcoords=axis.get_yaxis_transform(),
            va="center",
            # From the text's left edge, not from its middle.
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "relpos": (0, 0.5)},
            annotation_clip=False,
            **PLAIN,
        )


def _luminance(color: Sequence[float]) -> float:
    red, green, blue = (c**2.2 for c in color[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
