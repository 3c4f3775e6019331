"""A task's rows, and what an answer to them is worth."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from studies.transfer import data
from studies.transfer.rows import Rows, Split
from studies.transfer.scores import accuracy, score, text_scores

# Of a source's training rows, kept to validate on; the same ones in every run.
VALIDATION_ROWS, VALIDATION_SEED, TEST_SEED = 300, 0, 0


@dataclasses.dataclass(frozen=True)
class Task:
    """A task's rows.

    Attributes:
        name: string.
        num_classes: int; 0 where the answer is free text.
        train: rows to train on, or to draw few of them from.
        validation: rows to validate on; none of a target.
        test: rows for the final numbers.
        answers: the tokens of each class's word, or of each row's text; `None` under heads.
        references: the texts that may be answered, for each number in `y`; none of classes.
    """

    name: str
    num_classes: int
    train: Rows
    validation: Rows
    test: Rows
    answers: list[np.ndarray] | None = None
    references: list[list[str]] | None = None

    @property
    def is_text(self) -> bool:
        """Whether the answer is free text."""
        return self.num_classes == 0

    def measure(self, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """What predictions are worth: `score`, and what else is known of them."""
        if self.references is not None:
            return text_scores([self.references[i] for i in y], list(predicted))
        return {"score": score(self.name, y, predicted), "accuracy": accuracy(y, predicted)}


def divided(
    name: str, num_classes: int, train: Split, test: Split, test_rows: int, **more: Any
) -> Task:
    """A task of two files: a source's validation rows are cut off its training rows."""
    kept = VALIDATION_ROWS if name in data.SOURCES else 0
    # Free text has no classes to keep the proportions of.
    labels, test_labels = (
        part.y if num_classes else np.zeros_like(part.y) for part in (train, test)
    )
    trained_on, validated_on = data.cut_validation(labels, kept, VALIDATION_SEED)
    chosen = data.stratified(test_labels, test_rows, TEST_SEED)
    return Task(
        name,
        num_classes,
        Rows(train, trained_on),
        Rows(train, validated_on),
        Rows(test, chosen),
        **more,
    )


def some(rows: Rows, count: int) -> np.ndarray:
    """The places of at most so many of the rows, with the classes in their proportions."""
    return data.stratified(rows.y, count, TEST_SEED)
