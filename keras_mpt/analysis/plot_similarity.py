"""The heat map of how alike the tasks became."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from keras_mpt.analysis.figure import PLAIN, new_figure, number, saved, shaded_table, title
from keras_mpt.analysis.task_similarity import task_similarity
from keras_mpt.models.prompt_tuned_model import PromptTunedModel

_TITLES = {
    "factors": "Cosine of what tasks changed",
    "prompt": "Cosine of tasks' prompts",
}


def plot_similarity(
    model: PromptTunedModel, path: str | os.PathLike[str] | None = None, of: str = "factors"
) -> Any:
    """Draws `task_similarity` as a heat map with the values in its cells.

    Args:
        model: a prompt-tuned model with tasks.
        path: string. Where to save the picture; the ending says as what. `None` does not save it.
            Defaults to `None`.
        of: `"factors"` or `"prompt"`; see `task_similarity`. Defaults to `"factors"`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: a model without tasks, or an unknown `of`.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=["a", "b"]
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
        figure = keras_mpt.analysis.plot_similarity(model, tmp_path / "similarity.png")
        assert figure.axes[0].images[0].get_array().shape == (2, 2)
        ```
    """
    names, values = task_similarity(model, of)
    side = 0.46 * len(names)
    margin = 0.4 + 0.075 * max(map(len, names))
    figure = new_figure("plot_similarity", max(5.0, side + margin), max(1.5, side) + margin)
    axis = figure.subplots()
    digits = _digits(values)
    texts = [[number(v, f".{digits}f") for v in row] for row in values]
    shaded_table(axis, values, texts, "RdBu_r", low=-1)
    axis.set_xticks(range(len(names)), names, rotation=90, **PLAIN)
    axis.set_yticks(range(len(names)), names, **PLAIN)
    title(axis, _TITLES[of])
    return saved(figure, path)


def _digits(values: np.ndarray) -> int:
    """Two, or as many as tell the tasks apart, up to four."""
    others = values[~np.eye(len(values), dtype=bool) & np.isfinite(values)]
    digits = 2
    while digits < 4 and others.size and (others.round(digits) == 1).all():
        digits += 1
    return digits
