"""A linear probe: logistic regression on the frozen backbone's mean-pooled features."""

from __future__ import annotations

import numpy as np

from studies.transfer.heads.workbench import Workbench
from studies.transfer.job import Job, Method, Trained
from studies.transfer.rows import Inputs, Rows, by_length


def train(job: Job) -> Trained:
    """Fits the head; `job.rate` is the decay, and steps are L-BFGS's own."""
    weights = fit(features(job.bench, job.rows), job.rows.y, job.task.num_classes, job.rate)

    def predict(rows: Rows) -> np.ndarray:
        x = features(job.bench, rows)
        return np.argmax(x @ weights[:-1] + weights[-1], axis=1)

    return Trained(predict, weights.size)


def fit(x: np.ndarray, y: np.ndarray, num_classes: int, decay: float) -> np.ndarray:
    """The weights (d + 1, C), bias last, with the least mean cross-entropy + decay/2 · ‖W‖².

    The bias is not decayed.
    """
    from scipy.optimize import minimize

    x = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype("float64")
    shape = (x.shape[1], num_classes)
    decays = np.full((shape[0], 1), decay)
    decays[-1] = 0.0

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        logits = x @ weights
        logits -= logits.max(axis=1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        value = -log_probabilities[np.arange(len(y)), y].mean() + 0.5 * (decays * weights**2).sum()
        error = np.exp(log_probabilities)
        error[np.arange(len(y)), y] -= 1.0
        return value, (x.T @ error / len(y) + decays * weights).ravel()

    options = {"maxiter": 1000}
    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(shape)


def features(bench: Workbench, rows: Rows) -> np.ndarray:
    """The rows' features (N, d), each computed once."""
    split = rows.split
    if split.features is None:
        split.features = np.full((len(split.y), bench.backbone.hidden_dim), np.nan, "float32")
    unknown = Rows(split, rows.index[np.isnan(split.features[rows.index, 0])])
    if len(unknown):

        def pooled(x: Inputs) -> np.ndarray:
            tokens = bench.backbone.predict_on_batch(x)["sequence_output"]
            mask = x["padding_mask"][:, :, None]
            return (tokens * mask).sum(axis=1) / mask.sum(axis=1)

        split.features[unknown.index] = by_length(pooled, unknown, bench.batch_size)
    return split.features[rows.index]


HEAD = Method(
    "head",
    "head only",
    "logistic regression on the frozen model's mean-pooled features",
    "decay",
    (0.01, 0.1, 1.0, 10.0),
    train,
)
