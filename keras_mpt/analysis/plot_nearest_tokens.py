"""A prompt as a table of words."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from keras_mpt.analysis.checks import task_names
from keras_mpt.analysis.figure import PLAIN, new_figure, number, saved, shaded_table, title
from keras_mpt.analysis.nearest_tokens import nearest_tokens
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.types import Tokenizer

_LONGEST = 18


def plot_nearest_tokens(
    model: PromptTunedModel,
    task: str | int | None = None,
    k: int = 5,
    tokenizer: Tokenizer | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Draws `nearest_tokens` as a table: a row per prompt token, shaded by similarity.

    Args:
        model: a prompt-tuned model.
        task: string or int. Whose prompt; `None` is P. Defaults to `None`.
        k: int. How many entries of the vocabulary per prompt token. Defaults to `5`.
        tokenizer: a keras-hub tokenizer. `None` takes the one of the model's preprocessor. Defaults
            to `None`.
        path: string. Where to save the picture; the ending says as what. `None` does not save it.
            Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: Matplotlib is missing.
        ValueError: as in `nearest_tokens`.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
        model = keras_mpt.prompt_tune(backbone, config, num_classes=2)
        figure = keras_mpt.analysis.plot_nearest_tokens(model, k=3)
        assert figure.axes[0].images[0].get_array().shape == (4, 3)
        ```
    """
    found = nearest_tokens(model, task, k, tokenizer)
    values = np.array([[similarity for _, similarity in row] for row in found])
    texts = [[f"{_shown(token)}  {number(s, '.2f')}" for token, s in row] for row in found]
    width = 0.3 + 0.078 * max(len(text) for row in texts for text in row)
    figure = new_figure("plot_nearest_tokens", max(4.5, k * width + 0.8), 0.26 * len(found) + 0.9)
    axis = figure.subplots()
    shaded_table(axis, values, texts, "Blues", low=0)
    axis.set_xticks(range(k), [f"{rank + 1}." for rank in range(k)], **PLAIN)
    axis.set_yticks(range(len(found)), range(len(found)), **PLAIN)
    axis.xaxis.tick_top()
    axis.set_ylabel("prompt token", **PLAIN)
    whose = "the prompt" if task is None else f"the prompt of {_name(model, task)}"
    title(axis, f"Nearest tokens to {whose} (cosine)")
    return saved(figure, path)


def _name(model: PromptTunedModel, task: str | int) -> str:
    return task if isinstance(task, str) else task_names(model)[task]


def _shown(token: str | int) -> str:
    """A token on one line and of limited length."""
    text = str(token)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
