"""A GGUF file, as llama.cpp keeps language models, as a Hugging Face folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_mpt import _keras
from keras_mpt.checks import check_choice
from keras_mpt.files.paths import check_target
from keras_mpt.files.stages import stage_in
from keras_mpt.hugging_face.checkpoint_config import CONFIG_NAME
from keras_mpt.hugging_face.refusals import refuse
from keras_mpt.hugging_face.t5 import T5_KINDS
from keras_mpt.types import Config

_WEIGHTS_NAME = "model.safetensors"
_DTYPES = ("float32", "bfloat16", "float16")
_ARCHITECTURE = "general.architecture"
# Fields of a configuration that are not the model's.
_OF_THE_FILE = ("quantization_config", "_name_or_path", "_model_name_or_path")


def convert_gguf(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], dtype: str = "float32"
) -> Path:
    """Writes a GGUF file's model and tokenizer as a Hugging Face folder.

    The folder is what `keras_mpt.backbone_from_pretrained` and the `from_preset` of keras-hub's
    preprocessors read. Quantized weights are written as the numbers that they stand for.

    Args:
        path: string. A `.gguf` file.
        folder: string. The folder to write, which must not be there yet.
        dtype: string, of the weights in the folder: `"float32"`, `"bfloat16"` or `"float16"`.
            Defaults to `"float32"`, which keeps what a quantized weight stands for.

    Returns:
        The folder's path.

    Raises:
        ValueError: a file that is missing, no GGUF, cut off, without some of its weights, or of an
            architecture that transformers does not read from GGUF or keras-hub has no backbone for;
            or a folder that is there.
        ImportError: no gguf, transformers or PyTorch: the extra `gguf`.

    Example:
        ```python
        import pytest

        (tmp_path / "model.gguf").write_bytes(b"GGUF, and then nothing")
        with pytest.raises(ValueError, match="should be a whole GGUF file"):
            keras_mpt.convert_gguf(tmp_path / "model.gguf", tmp_path / "model")
        ```

    Source: transformers `modeling_gguf_pytorch_utils.py`, which does the reading.
    """
    path = Path(path)
    check_choice("dtype", dtype, _DTYPES)
    target = check_target("folder", folder)
    if target.exists():
        raise ValueError(
            "`folder` should be one that is not there yet. Received: "
            f"folder={str(folder)!r}, which is"
        )
    _check_packages()
    _check_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with stage_in(target.parent) as stage:
        made = stage / target.name
        made.mkdir()
        _write(path, made, dtype)
        os.replace(made, target)
    return target


def _check_packages() -> None:
    names = ("accelerate", "gguf", "torch", "transformers")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            "GGUF files are read by transformers with accelerate, gguf and PyTorch, of which "
            f'{missing} are missing: pip install "keras-mpt[gguf]"'
        )


def _check_file(path: Path) -> None:
    """Refuses what transformers would fail at with words of its own, or half way."""
    import gguf
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    if not path.is_file():
        raise ValueError(f"`path` should be a GGUF file. Received: path={str(path)!r}, no file")
    try:
        # It makes a view of each tensor, so that it also finds those that a cut file lacks.
        fields = gguf.GGUFReader(path).fields
        kind = fields[_ARCHITECTURE].contents()
    except Exception as error:  # Whatever NumPy and the reader meet in bytes of another kind.
        raise ValueError(
            f"`path` should be a whole GGUF file. Received: path={str(path)!r}, "
            f"{path.stat().st_size} bytes, of which gguf says {type(error).__name__}: {error}"
        ) from error
    if kind not in GGUF_SUPPORTED_ARCHITECTURES:
        raise ValueError(
            "`path` should be a GGUF file of an architecture that transformers reads, such as "
            f"'llama' or 'qwen2'. Received: path={str(path)!r} with "
            f"{_ARCHITECTURE}={kind!r}"
        )


def _write(path: Path, folder: Path, dtype: str) -> None:
    import safetensors.torch
    import torch
    import transformers

    given: Any = {"gguf_file": path.name}
    with _reading(path):
        config = transformers.AutoConfig.from_pretrained(path.parent, **given)
    _check_known(config.to_dict(), path)
    both_sides = config.is_encoder_decoder
    auto = transformers.AutoModelForSeq2SeqLM if both_sides else transformers.AutoModelForCausalLM
    given_weights: Any = {**given, "dtype": getattr(torch, dtype), "output_loading_info": True}
    with _reading(path):
        model, found = auto.from_pretrained(path.parent, **given_weights)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **given)
    if found["missing_keys"]:  # transformers starts them at random.
        raise ValueError(
            "`path` should be a GGUF file with all weights of its architecture. Received: "
            f"path={str(path)!r} with {_ARCHITECTURE}={config.model_type!r}, without "
            f"{sorted(found['missing_keys'])}"
        )
    tied = model.all_tied_weights_keys
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k not in tied}
    # `save_pretrained` refuses a model that was quantized.
    safetensors.torch.save_file(state, folder / _WEIGHTS_NAME, metadata={"format": "pt"})
    values = {k: v for k, v in model.config.to_dict().items() if k not in _OF_THE_FILE}
    values["architectures"] = [type(model).__name__]
    (folder / CONFIG_NAME).write_text(json.dumps(values, indent=2, default=str))
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Says in our words where transformers fails at a file."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # Whatever a field of another kind leads to.
        raise ValueError(
            "`path` should be a GGUF file that transformers can read. Received: "
            f"path={str(path)!r}, of which it says {type(error).__name__}: {error}"
        ) from error


def _check_known(config: Config, path: Path) -> None:
    """Refuses a model that keras-hub does not compute, before half a gigabyte is written."""
    if config["model_type"] in T5_KINDS:
        return
    refuse(config, str(path))
    try:
        _keras.hub_converter(str(path.parent), config)
    except ValueError as error:
        raise ValueError(
            "`path` should be a GGUF file of a model that keras-hub reads. Received: "
            f"path={str(path)!r} with model_type={config['model_type']!r}"
        ) from error
