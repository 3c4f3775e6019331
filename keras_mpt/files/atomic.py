"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path


def write_together(directory: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Writes several files of one directory, all of them or none.

    Everything is first written and flushed to a hidden directory on the same file system (inside
    `directory` where that exists, as it may be a mount of its own), so that a full disk or an
    interruption leaves what was there untouched. Then the files are moved into place; a move
    replaces an older file of the same name in one step. Only a process killed between two of those
    moves can leave new files beside old ones.

    Args:
        directory: string. Where the files go; made where it is missing.
        files: mapping of file name to its bytes.
    """
    target = Path(directory)
    if target.exists() and not target.is_dir():
        raise ValueError(
            f"`directory` should be a directory. Received: directory={str(target)!r}, a file"
        )
    is_new = not target.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    parent = target.parent if is_new else target
    stage = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
    try:
        for name, content in files.items():
            with open(stage / name, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if is_new:
            stage.chmod(0o755)
            stage.rename(target)
        else:
            _replace_all(stage, target, list(files))
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _replace_all(stage: Path, target: Path, names: list[str]) -> None:
    """Moves `names` from `stage` over those in `target`; puts the old ones back on an error."""
    old = stage / "old"
    old.mkdir()
    kept: list[str] = []
    moved: list[str] = []
    try:
        for name in names:
            if (target / name).exists():
                shutil.copy2(target / name, old / name)
                kept.append(name)
        for name in names:
            os.replace(stage / name, target / name)
            moved.append(name)
    except BaseException:
        for name in moved:
            if name in kept:
                os.replace(old / name, target / name)
            else:
                (target / name).unlink(missing_ok=True)
        raise
