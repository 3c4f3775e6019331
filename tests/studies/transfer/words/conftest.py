"""A tiny language model, and tasks made up."""

import json

import pytest

from studies.transfer.words import table
from studies.transfer.words.model import Model
from studies.transfer.words.tiny import write_tiny
from studies.transfer.words.workbench import Workbench

TASKS = ("sst2", "trec", "cr", "rte")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    pytest.importorskip("tokenizers", reason="the tiny model's tokenizer is made with it")
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tasks_folder(tmp_path_factory):
    """A few rows of each task: texts of several lengths."""
    folder = tmp_path_factory.mktemp("data")
    for name in TASKS:
        task, classes = folder / name, len(table.WORDS[name])
        task.mkdir()
        texts = "text_a\ttext_b" if name == "rte" else "text"
        body = [
            "\t".join(["so " * (i % 5) + f"row {i}"] * texts.count("text")) + f"\t{i % classes}"
            for i in range(340)
        ]
        for part, rows in (("train", body), ("test", body[:24])):
            (task / f"{part}.tsv").write_text("\n".join([f"{texts}\tlabel", *rows]))
        labels = {str(i): word for i, word in enumerate(table.WORDS[name])}
        (task / "labels.json").write_text(json.dumps(labels))
    for name in table.TEXTS:
        task = folder / name
        task.mkdir()
        rows = [json.dumps({"input": f"say {i}", "target": f"{i}"}) for i in range(340)]
        for part, own in (("train", rows), ("test", rows[:3])):
            (task / f"{part}.jsonl").write_text("\n".join(own))
    return folder


@pytest.fixture(scope="session")
def bench(tiny_folder, tasks_folder):
    return Workbench(tasks_folder, 16, Model(tiny_folder, "float32"))
