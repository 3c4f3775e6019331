"""Where an exported model goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from keras_mpt.checks import received
from keras_mpt.exporting.formats import Format
from keras_mpt.files.paths import is_file_name


def checked_place(filepath: Any, format: Format, overwrite: bool) -> Path:
    """The path of a file or folder that can be written.

    Args:
        filepath: what `filepath` was given.
        format: the format.
        overwrite: bool. Whether an older export may be replaced.

    Raises:
        ValueError: what is no path, ends otherwise, is in no folder that may be written in, or is
            there already; a folder that holds something else.
    """
    what = f"a path that ends in {format.suffix}" if format.suffix else "the path of a folder"

    def refused(should: str, of: str = "") -> ValueError:
        text = received(str(filepath) if isinstance(filepath, os.PathLike) else filepath)
        return ValueError(f"`filepath` should {should}. Received: filepath={text}{of}")

    is_path = isinstance(filepath, (str, os.PathLike))
    if not is_path or not isinstance(os.fspath(filepath), str) or not os.fspath(filepath):
        raise refused(f"be {what}")
    path = Path(os.path.abspath(os.fspath(filepath)))
    if not is_file_name(path.name) or not path.name.endswith(format.suffix):
        raise refused(f"be {what} for format={format.name!r}")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise refused("be in a folder that is there and may be written in")
    for made in format.files(path):
        if not os.path.lexists(made):
            continue
        if not overwrite:
            raise refused("be a new path, or `overwrite` True", f", and {made.name!r} is there")
        is_ours = made.is_file() if format.suffix else (made / "saved_model.pb").is_file()
        if not is_ours:
            kind = "file" if format.suffix else "SavedModel"
            raise refused(f"be a new path, or that of a {kind}", f", and {made.name!r} is none")
    return path
