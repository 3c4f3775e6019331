"""What a prediction is worth."""

from __future__ import annotations

import math

import numpy as np

# Its classes are so unequal that accuracy tells little.
BY_MATTHEWS = ("cola",)


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The share of rows that are right."""
    return float(np.mean(labels == predicted))


def matthews(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The correlation of two classes; 0 where only one is predicted."""
    pairs = [(labels == a) & (predicted == b) for a, b in ((1, 1), (0, 0), (0, 1), (1, 0))]
    tp, tn, fp, fn = (int(pair.sum()) for pair in pairs)
    below = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return (tp * tn - fp * fn) / below if below else 0.0


def score(task: str, labels: np.ndarray, predicted: np.ndarray) -> float:
    """The task's own measure."""
    measure = matthews if task in BY_MATTHEWS else accuracy
    return measure(labels, predicted)
