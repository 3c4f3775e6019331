"""What a prediction is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def text_scores(references: Sequence[Sequence[str]], answers: Sequence[str]) -> dict[str, float]:
    """How many answers are a reference, and their BLEU where sacrebleu is there.

    `score` is the first: BLEU is high where the input is copied.
    """
    own = [[_plain(text) for text in texts] for texts in references]
    hits = [_plain(answer) in texts for answer, texts in zip(answers, own, strict=True)]
    found = {"score": float(np.mean(hits)), "exact_match": float(np.mean(hits))}
    try:
        import sacrebleu
    except ImportError:
        return found
    most = max(map(len, references))
    streams = [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]
    bleu = sacrebleu.corpus_bleu(list(answers), streams)
    return {**found, "bleu": float(bleu.score) / 100}


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()
