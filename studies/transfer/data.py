"""The tasks' files, and which of their rows are trained on, validated on and tested on."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# The study's source tasks, of both parts; every other task is a target.
SOURCES = ("sst2", "subj", "trec", "ag_news", "mnli", "qnli", "qqp", "cola", "e2e_nlg")
# The share of the largest class among test rows; free text has none.
LARGEST = {
    "sst2": 0.501, "subj": 0.500, "trec": 0.276, "ag_news": 0.250, "mnli": 0.355, "qnli": 0.505,
    "qqp": 0.623, "cola": 0.689, "cr": 0.637, "tweet_irony": 0.603, "snips": 0.143, "mrpc": 0.665,
    "rte": 0.527, "disfl_qa": 0.0,
}  # fmt: skip
VARIABLE = "KERAS_MPT_DATA"
_BESIDE = Path(__file__).parents[3] / "shared" / "data"


@dataclasses.dataclass(frozen=True)
class Texts:
    """One file's rows.

    Attributes:
        texts: tuple of one list of N strings, or of two where rows are pairs.
        labels: int array (N,).
    """

    texts: tuple[list[str], ...]
    labels: np.ndarray


def find_data(given: Path | None = None) -> Path:
    """The folder with a folder per task: as given, of the environment, or beside the checkout."""
    folder = given or Path(os.environ.get(VARIABLE) or _BESIDE)
    if not folder.is_dir():
        sys.exit(
            f"The tasks' data should be a folder with {', '.join(SOURCES)} and the targets, each "
            "with train.tsv, test.tsv and labels.json or train.jsonl and test.jsonl: give it by "
            f"--data or {VARIABLE}. Received: {folder}"
        )
    return folder


def read_texts(file: Path) -> Texts:
    """Reads text<TAB>label or text_a<TAB>text_b<TAB>label; no quoting."""
    if not file.is_file():
        sys.exit(f"A task's folder should hold train.tsv and test.tsv. Received: no {file}")
    # Lines end at "\n" alone: text may hold other characters that Python splits lines at.
    header, *lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    columns = header.split("\t")
    if columns not in (["text", "label"], ["text_a", "text_b", "label"]):
        sys.exit(f"The header of {file} should be text, label or text_a, text_b, label.")
    rows = [line.split("\t") for line in lines]
    wrong = [i for i, row in enumerate(rows, start=2) if len(row) != len(columns)]
    if wrong:
        sys.exit(f"Rows of {file} should have {len(columns)} columns. Received: line {wrong[0]}")
    *texts, labels = (list(column) for column in zip(*rows, strict=True))
    return Texts(tuple(texts), np.array([int(label) for label in labels], "int32"))


def count_classes(folder: Path) -> int:
    """How many classes a task's labels.json names."""
    return len(json.loads((folder / "labels.json").read_text(encoding="utf-8")))


def stratified(labels: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """At most `rows` indices, with the classes in the proportions of `labels`, in rising order.

    Rows are ranked within their class in a random order; those are taken that come first relative
    to their class's size.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        own = order[labels[order] == label]
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    # Of rows at the same place the shuffled order decides, not the label.
    return np.sort(order[np.argsort(place[order], kind="stable")][:rows])


def cut_validation(labels: np.ndarray, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and, of `rows` rows, to validate on."""
    validation = stratified(labels, rows, seed)
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def check_tasks(folder: Path, names: Sequence[str]) -> None:
    """Ends the program where a task's folder is missing."""
    missing = [name for name in names if not (folder / name).is_dir()]
    if missing:
        sys.exit(f"{folder} should have a folder for each task. Received: none for {missing}")
