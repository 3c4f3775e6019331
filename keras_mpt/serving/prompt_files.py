"""Where a prompt's numbers are kept: in one file, or in a folder as TGIS has them.

TGIS, IBM's fork of Text Generation Inference, keeps each prompt in a folder of its name, with
`decoder.pt` for a decoder, and with `encoder.pt`, `decoder.pt` or both for an encoder-decoder.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_mpt.checks import received
from keras_mpt.files.atomic import Steps, write_steps
from keras_mpt.files.paths import check_target, is_file_name
from keras_mpt.files.tensor_file import SUFFIXES, read_tensor

_ENCODER, _DECODER = "encoder.pt", "decoder.pt"
# What an argument `path` should be, in messages.
_WANTED = f"a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, or a folder"


@dataclasses.dataclass(frozen=True)
class PromptFiles:
    """The files of one prompt, which stand in one folder.

    Attributes:
        folder: their folder.
        names: one file name for each of the M prompts, encoder first.
        others: names of files beside them that a reader would take for this prompt's.
    """

    folder: Path
    names: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def suffix(self) -> str:
        """The end of the files' names."""
        return Path(self.names[0]).suffix

    def write(self, contents: Mapping[str, bytes], overwrite: bool) -> None:
        """Writes the files, all of them or none.

        Args:
            contents: bytes by name.
            overwrite: bool. Whether files may be there, which they then replace.

        Raises:
            ValueError: a file is there, and `overwrite` is `False`; or what is there is no file.
        """

        def plan(folder: Path) -> Steps:
            there = [n for n in (*self.names, *self.others) if os.path.lexists(folder / n)]
            folders = [name for name in there if (folder / name).is_dir()]
            if folders:
                raise ValueError(
                    "`path` should be a file. Received: a folder of that name: "
                    f"{str(folder / folders[0])!r}"
                )
            if there and not overwrite:
                raise ValueError(
                    "`path` should not be there yet, or `overwrite` be True. Received: "
                    f"path={str(folder / there[0])!r}"
                )
            return list(contents.items())

        write_steps(self.folder, plan, remove=self.others)


def one_file(path: Any, suffixes: tuple[str, ...]) -> PromptFiles:
    """A file to write one tensor to.

    Args:
        path: what the argument `path` was given.
        suffixes: what its name may end in.

    Raises:
        ValueError: another name, or a folder that cannot be written to.
    """
    wanted = f"a file that ends in {' or '.join(suffixes)}"
    file = _as_path(path, wanted)
    if file.suffix not in suffixes or not is_file_name(file.name):
        raise _not_a_path(path, wanted)
    return PromptFiles(check_target("path", file.parent), (file.name,))


def files_for(path: Any, has_encoder: bool, submodules: int, position: str) -> PromptFiles:
    """The files to write a model's prompt to: by its name one file, or a folder's.

    Args:
        path: what the argument `path` was given.
        has_encoder: bool. Whether the model is an encoder-decoder.
        submodules: int. M.
        position: string. Where the prompt stands, as in `prompt_position`.

    Raises:
        ValueError: a path of another kind, two prompts in one file, or a folder for a prompt that
            stands elsewhere than in front.
    """
    file = _as_path(path)
    if file.suffix in SUFFIXES:
        if submodules > 1:
            raise ValueError(
                "`path` should be a folder where an encoder and a decoder have prompts: "
                f"{_ENCODER} and {_DECODER} are written there. Received: path={received(path)}"
            )
        return one_file(path, SUFFIXES)
    if file.suffix and not file.is_dir():
        raise _not_a_path(path, _WANTED)
    if position != "before":
        raise ValueError(
            "`prompt_position` should be 'before' for a folder: its readers put the prompt in "
            f"front of all tokens. Received: prompt_position={position!r} with "
            f"path={received(path)}"
        )
    names = (_ENCODER, _DECODER)[:submodules] if has_encoder else (_DECODER,)
    others = tuple(n for n in (_ENCODER, _DECODER) if n not in names)
    return PromptFiles(check_target("path", file), names, others)


def read_prompts(path: Any, has_encoder: bool) -> np.ndarray:
    """The prompt that a file or a folder holds.

    Args:
        path: what the argument `path` was given.
        has_encoder: bool. Whether it is for an encoder-decoder.

    Returns:
        A float32 array (M, L, d).

    Raises:
        ValueError, ImportError: as `read_tensor`; a folder without the files, or with others, or
            prompts of an encoder and a decoder that differ in size.
    """
    file = _as_path(path)
    if not file.is_dir():
        return read_tensor(file)[None]
    there = [name for name in (_ENCODER, _DECODER) if (file / name).is_file()]
    first = _ENCODER if has_encoder else _DECODER
    if not there or there[0] != first:
        wanted = f"{_ENCODER}, alone or with {_DECODER}" if has_encoder else f"{_DECODER} alone"
        raise ValueError(
            f"`path` should be a file, or a folder with {wanted}; `keras_mpt.load_adapter` opens "
            f"an adapter. Received: path={str(file)!r} with {there or 'neither'}"
        )
    prompts = [read_tensor(file / name) for name in there]
    if len({p.shape for p in prompts}) > 1:
        raise ValueError(
            f"`path` should be a folder whose {_ENCODER} and {_DECODER} have one shape. Received: "
            f"path={str(file)!r} with shapes {[p.shape for p in prompts]}"
        )
    return np.stack(prompts)


def _as_path(path: Any, wanted: str = _WANTED) -> Path:
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise _not_a_path(path, wanted)
    return Path(text)


def _not_a_path(path: Any, wanted: str) -> ValueError:
    return ValueError(f"`path` should be {wanted}. Received: path={received(path)}")
