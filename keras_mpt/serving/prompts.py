"""The numbers of a model's prompts, one ordinary prompt per task, as other programs take them."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import received, task_id
from keras_mpt.fitting.frozen import HasFrozen
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.prompts.prompt import Prompt
from keras_mpt.splicing.splice import Splice


class HasPrompts(HasFrozen, Protocol):
    """What these functions ask of a model: a `PromptTunedModel` has it."""

    prompt: Prompt
    splice: Splice
    model_inputs: ModelInputs
    embedding_scale: np.ndarray


def checked_task(model: HasPrompts, task: str | int | None) -> int | None:
    """A task's id, `None` for a model without tasks.

    Raises:
        ValueError: a task that the model does not have.
    """
    if model.model_inputs.has_tasks:
        return task_id("task", task, model.model_inputs.task_names)
    if task is not None:
        raise ValueError(
            "`task` should be None: this model has one prompt and no tasks. Received: "
            f"task={received(task)}"
        )
    return None


def prompts_of(model: HasPrompts, tasks: list[int] | None, scaled: bool) -> np.ndarray:
    """Tasks' prompts P ∘ (cols · rows), as one ordinary prompt each.

    Args:
        model: a prompt-tuned model.
        tasks: list of N task ids; `None` of a model without tasks, which has one.
        scaled: bool. Whether they are in the scale of transformers' `inputs_embeds`; else in that
            of the token table.

    Returns:
        A float32 array (N, M, L, d).

    Raises:
        ValueError: values that are not finite.
    """
    count = 1 if tasks is None else len(tasks)
    found = to_numpy(model.prompt.for_rows(tasks, count)).astype("float32")
    wrong = int((~np.isfinite(found)).sum())
    if wrong:
        raise ValueError(
            "`prompt` should be finite for another program to take it. Received: a prompt "
            f"with {wrong} values that are not"
        )
    if scaled:
        found = found * model.embedding_scale
    prompt = model.prompt
    sizes = (prompt.num_transformer_submodules, prompt.num_virtual_tokens, prompt.token_dim)
    return found.reshape(count, *sizes)
