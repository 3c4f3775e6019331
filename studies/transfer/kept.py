"""Trained sources, kept beside the log: runs on targets go on anywhere without another training."""

from __future__ import annotations

import shutil
from pathlib import Path

NAME = "sources"
# Of the working folder: what is no source's, and what is made of a package in a minute.
_OTHERS = ("claims", "smollm2", "tiny", "unpacked")
# The log's folder is a part of the site, which has no page for each adapter's card.
_CARD = "README.md"


def keep(work: Path, folder: Path) -> None:
    """Copies what sources and teachers have left in the working folder to beside the log.

    Args:
        work: the working folder.
        folder: the log's folder.
    """
    for trained in sorted(work.iterdir()):
        is_whole = trained.is_dir() and not trained.name.endswith(".unfinished")
        if is_whole and trained.name not in _OTHERS:
            kept = folder / NAME / trained.name
            shutil.copytree(
                trained,
                kept,
                ignore=shutil.ignore_patterns(_CARD),
                dirs_exist_ok=True,
                copy_function=_copy_missing,
            )


def restore(folder: Path, work: Path) -> None:
    """Copies what is kept beside the log to the working folder, where it is missing there.

    Args:
        folder: the log's folder.
        work: the working folder.
    """
    for kept in sorted((folder / NAME).glob("*")):
        if not (work / kept.name).exists():
            shutil.copytree(kept, work / kept.name)


def _copy_missing(source: str, target: str) -> None:
    """What a folder holds does not change: its name tells the inputs that it was made of."""
    if not Path(target).exists():
        shutil.copy2(source, target)
