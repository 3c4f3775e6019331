"""SmolLM2 and the tasks as prompts and answers: what all methods work on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from studies.transfer import data
from studies.transfer.rows import Split
from studies.transfer.tasks import Task, divided
from studies.transfer.words import table
from studies.transfer.words.model import Model

# Of a prompt, its last ones: what is longer is cut on the left. And of an answer in free text.
MAX_TOKENS, MAX_ANSWER = 96, 48
# Test rows of free text at most: they are generated token by token.
TEXT_ROWS = 64


class Workbench:
    """The model, and tasks that are read and tokenized once, when they are asked for.

    Args:
        folder: the data's folder.
        test_rows: int. At most so many test rows of a task, the same in every run.
        model: the language model.
    """

    # Of what only predicts.
    predict_rows = 32

    def __init__(self, folder: Path, test_rows: int, model: Model) -> None:
        self.folder, self.test_rows = folder, test_rows
        self.model = model
        # What the bare model says of rows, which is the same in every run.
        self.said: dict[Any, np.ndarray] = {}
        self._tasks: dict[str, Task] = {}

    def task(self, name: str) -> Task:
        """A task with its rows."""
        if name not in self._tasks:
            read = self._read_text if name in table.TEXTS else self._read_classes
            self._tasks[name] = read(name)
        return self._tasks[name]

    def _read_classes(self, name: str) -> Task:
        folder = self.folder / name
        train, test = (data.read_texts(folder / f"{part}.tsv") for part in ("train", "test"))
        answers = self.model.encode(table.WORDS[name])
        if len({int(answer[0]) for answer in answers}) < len(answers):
            sys.exit(f"The words of {name} should differ in their first tokens: {answers}")
        classes = data.count_classes(folder)
        splits = [self._split(name, texts.texts, texts.labels) for texts in (train, test)]
        return divided(name, classes, *splits, self.test_rows, answers=answers)

    def _read_text(self, name: str) -> Task:
        """A row's label is its own number: each has its own answer."""
        rows = [_lines(self.folder / name / f"{part}.jsonl") for part in ("train", "test")]
        together = [row for part in rows for row in part]
        tokens = self.model.encode([" " + row["target"] for row in together])
        end = np.array([self.model.end], "int32")
        answers = [np.concatenate([own[: MAX_ANSWER - 1], end]) for own in tokens]
        labels = np.split(np.arange(len(together), dtype="int32"), [len(rows[0])])
        splits = [
            self._split(name, ([row["input"] for row in part],), own)
            for part, own in zip(rows, labels, strict=True)
        ]
        references = [row.get("targets", [row["target"]]) for row in together]
        few = min(self.test_rows, TEXT_ROWS)
        return divided(name, 0, *splits, few, answers=answers, references=references)

    def _split(self, name: str, texts: tuple[list[str], ...], labels: np.ndarray) -> Split:
        prompts = [table.prompt(name, *own) for own in zip(*texts, strict=True)]
        tokens = [own[-MAX_TOKENS:] for own in self.model.encode(prompts)]
        mask = np.arange(MAX_TOKENS) < np.array([len(own) for own in tokens])[:, None]
        ids = np.zeros(mask.shape, "int32")
        ids[mask] = np.concatenate(tokens)
        return Split({"token_ids": ids, "padding_mask": mask.astype("int32")}, labels)


def _lines(file: Path) -> list[dict]:
    if not file.is_file():
        sys.exit(
            f"A text task's folder should hold train.jsonl and test.jsonl. Received: no {file}"
        )
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
