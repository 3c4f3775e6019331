"""Logits where prompts end, of a model of ours: each row is read once, whatever its length."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.transfer.rows import Inputs
from studies.transfer.words.answers import last_positions


def last_logits(model: Any, x: Inputs) -> np.ndarray:
    """Logits (B, V) of the token after each row's last one.

    `predict_labels` gives the same labels, but goes on from each length of rows apart.
    """
    import torch

    from keras_mpt.decoding.state import Context

    decoder = model.decoding.decoder(True)
    others = dict(x)
    ids, mask = others.pop("token_ids"), others.pop("padding_mask")
    prompts = decoder.row_prompts(others.pop("task_ids", None), len(ids))
    with torch.no_grad():
        states, _ = decoder.read(ids, Context(prompts, others), with_states=True)
        here = states[np.arange(len(ids)), last_positions({"padding_mask": mask})]
        logits = model.backbone.token_embedding(here, reverse=True)
    return logits.float().cpu().numpy()
