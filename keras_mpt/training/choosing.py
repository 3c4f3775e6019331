"""Which source task a new one starts from: by a probe's prompt, or by the loss at the start."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from keras_mpt.data.columns import as_array, settled
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.models.tasks import multitask_config
from keras_mpt.prompts.cosines import cosines

NEAREST, LOWEST_LOSS = "nearest", "lowest_loss"
CHOSEN = (NEAREST, LOWEST_LOSS)


def nearness(
    source: Any,
    probe: PromptTunedModel,
    name: str,
    data: tuple[Any, ...],
    epochs: int,
    verbose: Any,
) -> dict[str, float]:
    """How alike the new task's and each source's prompt are in what sets them off the average.

    Args:
        source: the source model.
        probe: a model of the new task, from the average; its factors are trained.
        name: string. The new task's name.
        data: `(x, y)` or `(x, y, sample_weight)`, its rows.
        epochs: int. How long the probe is trained.
        verbose: as in `keras.Model.fit`.

    Returns:
        A dict of source task to cosine.
    """
    x, y, sample_weight = _of_task(name, data)
    average = _flat_prompts(probe)
    probe.fit(x, y, sample_weight=sample_weight, epochs=epochs, verbose=verbose)
    moved = _flat_prompts(probe) - average
    found = cosines(moved, _flat_prompts(source) - average)[0]
    # A single source is the average itself, and sets itself off by nothing.
    if len(found) > 1 and not np.isfinite(found).any():
        raise ValueError(
            "`from_` should name a source task where none is nearer than another. Received: "
            f"from_='nearest' for task {name!r}, with sources that are all alike, or a probe whose "
            "prompt did not move or is not finite"
        )
    return dict(zip(multitask_config(source).names, np.nan_to_num(found).tolist(), strict=True))


def losses(
    source: Any, probe: PromptTunedModel, name: str, data: tuple[Any, ...]
) -> dict[str, float]:
    """The loss of the new task's rows under each source's prompt.

    Args:
        source: the source model.
        probe: a model of the new task with as many ranks; it takes one source's factors after the
            other.
        name: string. The new task's name.
        data: `(x, y)` or `(x, y, sample_weight)`, its rows.

    Returns:
        A dict of source task to loss.
    """
    x, y, sample_weight = _of_task(name, data)
    probe.compile(metrics=None, weighted_metrics=None)
    state = source.prompt.get_peft_state_dict()
    factors = {part: value for part, value in state.items() if part != "prompt_embeddings"}
    found: dict[str, float] = {}
    for k, task in enumerate(multitask_config(source).names):
        own = {part: value[k : k + 1] for part, value in factors.items()}
        probe.prompt.set_peft_state_dict({**state, **own}, "source")
        logs: Any = probe.evaluate(x, y, sample_weight=sample_weight, verbose=0, return_dict=True)
        found[task] = float(logs["loss"])
    if not any(map(math.isfinite, found.values())):
        raise ValueError(
            "`from_` should name a source task where no loss is finite. Received: "
            f"from_='lowest_loss' for task {name!r}, with losses {found}"
        )
    return {task: loss if math.isfinite(loss) else math.inf for task, loss in found.items()}


def _of_task(name: str, data: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """The rows as a model with the new task alone takes them, and as often as it asks."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
    x = settled(x)
    x = x if isinstance(x, dict) else {"text": x}
    return {**x, "task_ids": name}, as_array(y), as_array(sample_weight)


def _flat_prompts(model: PromptTunedModel) -> np.ndarray:
    """Each task's prompt as one vector, (T, L·d)."""
    state = model.prompt.get_peft_state_dict()
    products = state["prefix_task_cols"].astype("float64") @ state["prefix_task_rows"]
    prompts = state["prompt_embeddings"] * products
    return prompts.reshape(len(prompts), -1)
