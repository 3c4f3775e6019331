"""What may be part of a path, and where something may be written."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeGuard

# File systems take 255 bytes, some fewer.
_LONGEST = 200


def is_file_name(value: Any) -> TypeGuard[str]:
    """Whether a value is the name of one file or folder, on any system.

    Not one that leads elsewhere (`".."`, a path, `"C:x"`), that is empty, too long, or has control
    characters or halves of characters in it.

    Args:
        value: anything.
    """
    if not isinstance(value, str) or value in ("", ".", "..") or not value.isprintable():
        return False
    is_one_part = PurePosixPath(value).name == PureWindowsPath(value).name == value
    return is_one_part and len(value.encode(errors="replace")) <= _LONGEST


def check_target(argument: str, directory: Any) -> Path:
    """The path of a directory that is there, or can be made.

    Args:
        argument: string. The argument, for the message.
        directory: what it was given.

    Raises:
        ValueError: what is no path, a file, or a path under a file; a name too long or with a NUL;
            a folder in which nothing may be written.
    """

    def refused(reason: str) -> ValueError:
        return ValueError(
            f"`{argument}` should be a directory. Received: {argument}={shown!r}{reason}"
        )

    is_path = isinstance(directory, (str, os.PathLike))
    text = os.fspath(directory) if is_path else None
    shown: Any = directory if text is None else text
    if not isinstance(text, str) or not text:
        raise refused("")
    if "\0" in text:
        raise refused(", with a NUL in it")
    try:
        path = Path(text)
        nearest = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
        if not nearest.is_dir():
            what = "a file" if nearest.exists() else "a link to nothing"
            raise refused(f", {what}" if nearest == path else f", under {str(nearest)!r}, {what}")
        for part in path.parts:
            if len(os.fsencode(part)) > 255:
                raise refused(f", with a name of {len(os.fsencode(part))} bytes")
    except (OSError, UnicodeError) as error:
        raise refused(f": {error}") from None
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise refused(f"; nothing may be written in {str(nearest)!r}")
    return path
