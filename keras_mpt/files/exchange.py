"""Files and folders that are made beside their places and then take them together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from keras_mpt.files.stages import stage_in


@contextlib.contextmanager
def exchanging(folder: Path) -> Iterator[Path]:
    """A hidden folder, whose files and folders then move into the one that it is in.

    What stood there under their names goes, at the end: where the block fails, or a move does, all
    is as it was. A process that is killed between two moves can leave new ones beside old ones.

    Args:
        folder: the path of a directory.

    Returns:
        A context that gives the path of the hidden folder.
    """
    with stage_in(folder) as stage:
        made, old = stage / "made", stage / "old"
        made.mkdir()
        old.mkdir()
        yield made
        moved: list[str] = []
        try:
            for path in sorted(made.iterdir()):
                moved.append(path.name)
                _take_place(path, folder / path.name, old)
        except BaseException:
            for name in reversed(moved):
                _put_back(folder / name, made, old)
            raise


def _take_place(path: Path, place: Path, old: Path) -> None:
    if os.path.lexists(place):
        place.rename(old / place.name)
    path.rename(place)


def _put_back(place: Path, made: Path, old: Path) -> None:
    """One place as it was, however far its exchange came."""
    if not os.path.lexists(made / place.name):
        place.rename(made / place.name)
    if os.path.lexists(old / place.name):
        (old / place.name).rename(place)
