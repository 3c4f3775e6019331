"""What a server is sent that takes embeddings in the place of tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_flag
from keras_mpt.decoding.generation_inputs import (
    as_text,
    check_right_padding,
    whole_tokens,
    without_task_ids,
)
from keras_mpt.fitting.alone import alone
from keras_mpt.serving.prompts import HasPrompts, prompts_of
from keras_mpt.types import TaskIds


@alone
def prompt_embeds(
    self: HasPrompts, inputs: Any, *, task_ids: TaskIds | None = None, scaled: bool = True
) -> list[np.ndarray]:
    """Each row's whole input as embeddings: its task's prompt, and its tokens after it.

    That is what vLLM takes as a request's `prompt_embeds`, SGLang as `input_embeds` (`.tolist()`)
    and transformers as `inputs_embeds`; a server with the same backbone then goes on as `generate`
    does. Position embeddings are not in it: servers add these.

    Args:
        inputs: as `generate` takes them: string or list of strings where the model has a
            preprocessor, else a dict of `token_ids` and `padding_mask`, each (B, S) integer and
            padded on the right. A dict may hold `task_ids`.
        task_ids: integer, task name, or a list of them with one per row, (B,). Not given to a model
            without tasks. Defaults to `None`.
        scaled: bool. As in `export_prompt_embeds`. Defaults to `True`.

    Returns:
        A list of B float32 arrays (L + S_b, d), for rows of S_b tokens without padding.

    Raises:
        ValueError: wrong inputs or task ids, as in `generate`; positions of your own, which a
            server counts itself; or a prompt that is not finite.

    Example:
        ```python
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=4, num_tasks=2
        )
        model = keras_mpt.prompt_tune(backbone, config)
        ids = np.array([[5, 6, 7], [8, 9, 0]])
        embeds = model.prompt_embeds({"token_ids": ids, "padding_mask": ids > 0}, task_ids=[0, 1])
        assert [e.shape for e in embeds] == [(7, 8), (6, 8)]
        ```

    Source: vLLM `docs/features/prompt_embeds.md`; SGLang `srt/managers/io_struct.py`; transformers
    `inputs_embeds`.
    """
    scaled, splice = check_flag("scaled", scaled), self.splice
    (tokens,) = splice.token_inputs
    assert tokens.mask_name is not None
    inputs, task_ids = without_task_ids(inputs, task_ids)
    text = as_text(inputs, self.model_inputs.preprocessor, False)
    x = inputs
    if text is not None:
        x = whole_tokens(text, self.model_inputs, "a server is given all of them")
    x = self.model_inputs.prepare(x if task_ids is None else {**x, "task_ids": task_ids})
    own = [name for name in tokens.other_names if name in x]
    if own:
        raise ValueError(
            f"`inputs` should leave out {own}: a server counts each row's tokens from 0. Received: "
            f"inputs with {own}"
        )
    ids, mask = (to_numpy(x[name]) for name in (tokens.name, tokens.mask_name))
    check_right_padding(mask, tokens.mask_name)
    embedded = to_numpy(splice.embed_tokens(ids.reshape(-1))).astype("float32")
    if scaled:
        embedded = embedded * self.embedding_scale[0]
    rows = embedded.reshape(*ids.shape, -1)
    # Each different task's prompt once.
    tasks, which = np.unique(to_numpy(x.get("task_ids", np.zeros(len(ids)))), return_inverse=True)
    has_tasks = self.model_inputs.has_tasks
    prompts = prompts_of(self, tasks.tolist() if has_tasks else None, scaled)[:, 0]
    lengths = (mask != 0).sum(axis=1)
    places = np.broadcast_to(to_numpy(splice.place(x)), lengths.shape)
    return [
        np.concatenate([row[:at], prompts[k], row[at:length]])
        for row, k, at, length in zip(rows, which, places, lengths, strict=True)
    ]
