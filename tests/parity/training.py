"""The same steps of plain SGD, by PyTorch on PEFT's model and by Keras on ours."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import keras
import numpy as np

import keras_mpt
from tests.parity.measure import (
    TASK_IDS,
    Pair,
    data,
    load_peft_adapter,
    our_inputs,
    peft_logits,
    torch,
)

# Large enough that every weight moves by a thousand times what the two may differ by.
STEPS, LEARNING_RATE = 5, 0.3


class Trained(NamedTuple):
    """Of all that an adapter holds: P, cols, rows, and a classifier's head.

    Attributes:
        error: the largest difference between a number of ours and PEFT's.
        moved: how far the number of each array moved that moved most; of these the least.
    """

    error: float
    moved: float


def training_error(pair: Pair) -> Trained:
    """Both models trained from PEFT's adapter on the same batches."""
    ours = load_peft_adapter(pair)
    if pair.family.task_type == "SEQ_CLS":
        # A classifier's head in keras-hub has a dropout of its own, which PEFT's model has not.
        head = {"head_config": {"dropout": 0.0}}
        ours = keras_mpt.load_adapter(pair.here, pair.folder / "peft", **head)
    batches = [_labelled(data(seed=step), ours) for step in range(STEPS)]
    before = keras_mpt.read_state_dict(pair.folder / "peft")
    _train_ours(pair, ours, batches)
    ours.save_adapter(pair.folder / "trained_here", overwrite=True)
    theirs = copy.deepcopy(pair.model)
    _train_theirs(pair, theirs, batches)
    theirs.save_pretrained(pair.folder / "trained_there")
    here, there = (
        keras_mpt.read_state_dict(pair.folder / name) for name in ("trained_here", "trained_there")
    )
    assert here.keys() == there.keys() == before.keys()
    error = max(np.abs(here[name] - there[name]).max() for name in before)
    moved = min(np.abs(there[name] - before[name]).max() for name in before)
    return Trained(float(error), float(moved))


def _labelled(d: dict[str, np.ndarray], model: Any) -> dict[str, np.ndarray]:
    """A batch with labels of the model's form; padding does not count."""
    if isinstance(model, keras_mpt.models.PromptTunedTextClassifier):
        return {**d, "y": d["labels"][:, 0] % model.num_classes, "weight": np.ones(len(d["mask"]))}
    return {**d, "y": d["labels"], "weight": d["mask"].astype("float32")}


def _train_ours(pair: Pair, model: Any, batches: list[dict[str, np.ndarray]]) -> None:
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    model.compile(keras.optimizers.SGD(LEARNING_RATE), loss, weighted_metrics=[])
    inputs = [{**our_inputs(pair, d), "task_ids": np.array(TASK_IDS)} for d in batches]
    x = {name: np.concatenate([i[name] for i in inputs]) for name in inputs[0]}
    y, weight = (np.concatenate([d[name] for d in batches]) for name in ("y", "weight"))
    rows = len(TASK_IDS)
    model.fit(x, y, sample_weight=weight, batch_size=rows, shuffle=False, verbose=0)


def _train_theirs(pair: Pair, model: Any, batches: list[dict[str, np.ndarray]]) -> None:
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.SGD(weights, LEARNING_RATE)
    for d in batches:
        logits, counts = peft_logits(pair, model, d), torch.tensor(d["weight"]) == 1
        loss = torch.nn.functional.cross_entropy(logits[counts], torch.tensor(d["y"])[counts])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
