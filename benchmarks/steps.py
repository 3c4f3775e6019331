"""One step of training on either side, as a function without arguments, and outputs to compare."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cases import Batch, Case, our_inputs, peft_inputs

RATE = 1e-4


def peft_step(case: Case, model: Any, data: Batch) -> Callable[[], Any]:
    """Adam on P, the factors and a classifier's head; logits of prompt positions cost no loss.

    A step gives the loss before it.
    """
    import torch

    model.train()
    model.config.use_cache = False  # Keys and values that nobody reads.
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, RATE, fused=True)
    inputs = peft_inputs(case, data, model.device)
    labels = torch.tensor(data.labels, dtype=torch.long, device=model.device)

    def step() -> Any:
        outputs = model(**inputs)
        loss = outputs.loss if "labels" in inputs else None
        if loss is None:
            logits = outputs.logits
            logits = logits[:, case.length :] if case.has_logits_per_token else logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wait_for_gpu()
        return loss.detach()

    return step


def our_step(
    case: Case, model: Any, data: Batch, jit_compile: bool | str = "auto"
) -> Callable[[], Any]:
    """Adam on the same weights, by `train_on_batch`; a step gives the loss before it."""
    import keras

    model.compile(optimizer=keras.optimizers.Adam(RATE), jit_compile=jit_compile)
    inputs = our_inputs(case, data)

    def step() -> Any:
        logs = model.train_on_batch(inputs, data.labels, data.weights)
        wait(model)
        return np.ravel(logs)[0]

    return step


def wait(model: Any) -> None:
    """Until a step's last number is there: JAX returns before, and so does a GPU's queue."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready([v.value for v in model.trainable_variables])
    wait_for_gpu()


def wait_for_gpu() -> None:
    """Until PyTorch's GPU is done, where there is one and PyTorch is in use."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def difference(case: Case, ours: Any, theirs: Any, data: Batch) -> float:
    """Of logits at the user's positions, relative to the largest."""
    import torch

    theirs.eval()
    with torch.no_grad():
        expected = theirs(**peft_inputs(case, data, theirs.device)).logits.float().cpu().numpy()
    if case.is_causal:
        expected = expected[:, case.length :]
    found = our_logits(case, ours, data)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def our_logits(case: Case, ours: Any, data: Batch) -> np.ndarray:
    """Our model's logits at the user's positions."""
    return np.asarray(ours.predict_on_batch(our_inputs(case, data)), "float32")
