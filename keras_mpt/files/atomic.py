"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from keras_mpt.files.paths import check_target
from keras_mpt.files.stages import locked, stage_in

# Files by name, in the order in which they take their places; a name may come twice.
Steps = Sequence[tuple[str, bytes]]


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

    Raises:
        ValueError: a `directory` that cannot be one.
    """
    write_steps(directory, lambda target: list(files.items()))


def write_steps(
    directory: str | os.PathLike[str],
    plan: Callable[[Path], Steps],
    remove: Sequence[str] = (),
) -> None:
    """As `write_together`, of files that depend on what is there; one writer comes after another.

    Args:
        directory: string.
        plan: function of the directory that gives what is moved into it. While it looks there, and
            until all is done, no other process that uses this function writes.
        remove: names of files that go at the end. Defaults to `()`.
    """
    while True:
        target = check_target("directory", directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        is_new = not target.exists()
        folder = target.parent if is_new else target
        with locked(folder):
            if target.exists() is is_new:
                continue  # Another process has made or removed it since.
            steps = plan(target)
            with stage_in(folder, is_locked=True) as stage:
                if is_new:
                    _make(stage, target, dict(steps))
                else:
                    _replace_all(stage, target, steps)
            for name in remove:
                (target / name).unlink(missing_ok=True)
        return


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Another path to write a file to, which then takes its place in one step.

    Args:
        file: the path of a file, new or old.

    Returns:
        A context that gives a path of the same name in a hidden directory beside it. Where the
        block fails, or the process is killed, the file stays what it was.
    """
    with stage_in(file.parent) as stage:
        yield stage / file.name
        with open(stage / file.name, "rb") as written:
            os.fsync(written.fileno())
        if file.exists():
            shutil.copymode(file, stage / file.name)
        os.replace(stage / file.name, file)
        _flush(file.parent)


def _make(stage: Path, target: Path, files: Mapping[str, bytes]) -> None:
    """Makes a new directory of the files: the stage itself takes its place."""
    for name, content in files.items():
        _write(stage / name, content)
    stage.chmod(0o755)
    stage.rename(target)
    _flush(target.parent)


def _replace_all(stage: Path, target: Path, steps: Steps) -> None:
    """Moves files into their places, in their order; puts the old ones back on an error."""
    staged = [(stage / f"{i}-{name}", name) for i, (name, _) in enumerate(steps)]
    for (path, _), (_, content) in zip(staged, steps, strict=True):
        _write(path, content)
    old = stage / "old"
    old.mkdir()
    for name in dict(steps):
        if (target / name).exists():
            shutil.copy2(target / name, old / name)
    moved: list[str] = []
    try:
        for path, name in staged:
            os.replace(path, target / name)
            moved.append(name)
    except BaseException:
        # The first that was moved goes back last: a reader knows by it what the others are.
        for name in reversed(dict.fromkeys(moved)):
            if (old / name).exists():
                os.replace(old / name, target / name)
            else:
                (target / name).unlink(missing_ok=True)
        raise
    _flush(target)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    """Has the names in a folder written to the disk, where its file system can."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
