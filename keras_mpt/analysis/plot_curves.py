"""How each task learned."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mpt.analysis.figure import (
    COLORS,
    MARKERS,
    PLAIN,
    TEXT_COLOR,
    label_ends,
    new_figure,
    plain,
    saved,
    title,
)
from keras_mpt.analysis.task_logs import tasks_and_measures

ALL = "all tasks"


def plot_curves(
    history: Any,
    path: str | os.PathLike[str] | None = None,
    validation_freq: int | Sequence[int] | None = None,
) -> Any:
    """Draws the loss and each metric of `fit`, a curve per task and one of all tasks.

    Curves of validation data are dashed. Epochs in which a task had no rows are left out of its
    curve. Keras's own `keras.callbacks.TensorBoard` writes the same logs, each task's as a scalar
    such as "epoch_topic_loss".

    Args:
        history: what `fit` of a model with tasks returned, or its `history`, a dict of name to list
            of floats.
        path: string. Where to save the picture; the ending says as what. `None` does not save it.
            Defaults to `None`.
        validation_freq: int or list of ints, as `fit` was given it. `None` tells it from how many
            values there are, where only one number fits. Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`, with one axes for the loss and each metric.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: a history without logs of tasks, or whose validation fits several epochs.

    Example:
        ```python
        logs = {"loss": [0.7, 0.4], "tone_loss": [0.9, 0.5], "topic_loss": [0.5, 0.3]}
        figure = keras_mpt.analysis.plot_curves(logs, tmp_path / "curves.png")
        assert [axes.get_ylabel() for axes in figure.axes] == ["loss"]
        ```
    """
    logs = getattr(history, "history", history)
    if not isinstance(logs, Mapping):
        raise ValueError(
            "`history` should be what `fit` returned, or its dict of logs. Received: a "
            f"{type(history).__name__}"
        )
    tasks, measures = tasks_and_measures(name for name in logs if not name.startswith("val_"))
    if not tasks:
        raise ValueError(
            "`history` should have logs of tasks, such as 'topic_loss'. `fit` gives them for up to "
            f"32 tasks. Received: history with {list(logs)}"
        )
    measures = sorted(measures, key=lambda name: name != "loss")  # The loss first.
    height = max(3.2, 0.16 * (len(tasks) + 1) + 1.0)
    width = 4.3 + 0.075 * max(map(len, [*tasks, ALL]))
    figure = new_figure("plot_curves", width * len(measures), height)
    epochs = _epochs(history, max(map(len, logs.values())))
    validated = _validated(epochs, logs, validation_freq)
    axes = figure.subplots(1, len(measures), squeeze=False)[0]
    for axis, measure in zip(axes, measures, strict=True):
        _draw(axis, logs, tasks, measure, epochs, validated)
    return saved(figure, path)


def _draw(
    axis: Any,
    logs: Any,
    tasks: list[str],
    measure: str,
    epochs: np.ndarray,
    validated: np.ndarray,
) -> None:
    names, ends, colors = [], [], []
    for k, task in enumerate([*tasks, ALL]):
        name = measure if task == ALL else f"{task}_{measure}"
        if name not in logs:  # Of tasks that are measured by other metrics.
            continue
        color = TEXT_COLOR if task == ALL else COLORS[k % len(COLORS)]
        style = {
            "color": color,
            "marker": MARKERS[k // len(COLORS) % len(MARKERS)],
            "markersize": 4 if len(epochs) <= 20 else 2,
            "linewidth": 2.2 if task == ALL else 1.4,
        }
        for prefix, line, x in (("", "-", epochs), ("val_", "--", validated)):
            values = np.asarray(logs.get(prefix + name, []), "float64")
            if len(values):
                axis.plot(x, values, line, label=prefix + name, **style)
        values = np.asarray(logs[name], "float64")
        last = np.flatnonzero(np.isfinite(values))
        if len(last):
            names.append(task)
            ends.append((epochs[last[-1]], values[last[-1]]))
            colors.append(color)
    label_ends(axis, names, ends, colors)
    axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axis.set_xlabel("epoch", **PLAIN)
    axis.set_ylabel(measure, **PLAIN)
    dashed = ", dashed: validation" if f"val_{measure}" in logs else ""
    title(axis, f"{measure.replace('_', ' ').capitalize()} per task{dashed}")
    plain(axis)


def _epochs(history: Any, count: int) -> np.ndarray:
    """The epochs' numbers from 1; of a dict nothing is known of an `initial_epoch`."""
    epochs = getattr(history, "epoch", None)
    return np.arange(1, count + 1) if epochs is None else np.asarray(epochs) + 1


def _validated(epochs: np.ndarray, logs: Any, freq: int | Sequence[int] | None) -> np.ndarray:
    """The epochs that ended with a validation: as Keras has it, every freq-th, or those listed."""
    count = max((len(v) for name, v in logs.items() if name.startswith("val_")), default=0)
    if not count:
        return epochs
    if freq is None:
        options = [f for f in range(1, epochs[-1] + 1) if sum(epochs % f == 0) == count]
        if len(options) != 1:
            raise ValueError(
                "`validation_freq` should be given, as it was to `fit`: several fit, or none. "
                f"Received: validation_freq=None with {count} validations in {len(epochs)} epochs"
            )
        freq = options[0]
    found = epochs[np.isin(epochs, freq) if np.ndim(freq) else epochs % freq == 0]
    if len(found) != count:
        raise ValueError(
            f"`validation_freq` should fit the {count} validations in {len(epochs)} epochs. "
            f"Received: validation_freq={freq!r}"
        )
    return found
