"""Charts of measurements, as SVG files: of the same numbers the same file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STYLE = {
    # Text stays text, which can be searched, and names within the file are not random.
    "svg.fonttype": "none",
    "svg.hashsalt": "keras_mpt",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.bbox": "tight",
}


@contextmanager
def chart(file: Path, rows: int = 1, columns: int = 1, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, written to a file when all is drawn.

    Args:
        file: path of the SVG.
        rows: of axes. Defaults to `1`.
        columns: of axes. Defaults to `1`.
        **kwargs: of `pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(rows, columns, layout="constrained", **kwargs)
        try:
            yield figure, axes
            figure.savefig(file, metadata={"Date": None})
        finally:
            pyplot.close(figure)


def legend_below(figure: Any, columns: int) -> None:
    """One legend of all axes, each label once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    columns = max(1, min(columns, len(handles)))
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=columns
    )  # fmt: skip
