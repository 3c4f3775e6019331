"""Training by a plain loop, for what runs in PyTorch without Keras's `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from studies.transfer.rows import Inputs
from studies.transfer.watch import Watch


def device() -> str:
    """Where Keras computes too."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def fit(
    groups: Iterable[tuple[list[Any], float]],
    logits_of: Callable[[Inputs], Any],
    batches: Iterable[tuple[Any, ...]],
    steps: int,
    watch: Watch | None = None,
) -> None:
    """Adam on the cross-entropy, every rate going down to 0 in a line.

    Args:
        groups: parameters and their learning rate.
        logits_of: function of a batch's inputs that gives its logits, a tensor (B, C).
        batches: inputs and labels (B,), and if wanted what each label weighs in the mean (B,).
        steps: int. How many batches there are.
        watch: told of every step's loss, or `None`.
    """
    import torch

    optimizer = torch.optim.Adam([{"params": p, "lr": rate} for p, rate in groups], eps=1e-7)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    total = 0.0
    for step, (x, y, *weights) in enumerate(batches, start=1):
        logits = logits_of(x)
        labels = torch.as_tensor(y, dtype=torch.long, device=logits.device)
        losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
        count = torch.as_tensor(weights[0] if weights else np.ones(len(y), "float32")).to(losses)
        loss = (losses * count).sum() / count.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if watch is not None:
            watch.after_step(step, total / step)


def as_bert(x: Inputs) -> dict[str, Any]:
    """The inputs under transformers' names."""
    import torch

    names = {
        "input_ids": "token_ids",
        "attention_mask": "padding_mask",
        "token_type_ids": "segment_ids",
        "task_ids": "task_ids",
    }
    return {
        theirs: torch.as_tensor(x[ours], dtype=torch.long, device=device())
        for theirs, ours in names.items()
        if ours in x
    }


def mean_over_tokens(tokens: Any, mask: Any) -> Any:
    """The mean of each row's tokens (B, S, d) that are not padding."""
    weights = mask[:, :, None].to(tokens.dtype)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1)
