"""Hidden directories that files are written to before they take their places, and their locks.

A lock is the operating system's own on an open directory (`flock`): it leaves no file, and goes
with the process that holds it, however that ends. Where there is none (Windows, some network
drives), writers do not wait for each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows.
    fcntl = None  # type: ignore[assignment]

PREFIX = ".keras_mpt-stage-"

# A write takes a moment. Longer than this, something else is the matter.
_PATIENCE = 60.0
# Where nothing tells whether a stage's process lives, it is a dead one's after a day.
_OLD = 24 * 3600.0


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a directory's lock, for which other writers wait.

    Args:
        folder: the path of a directory.

    Raises:
        TimeoutError: another process holds it for a minute.
    """
    until = time.monotonic() + _PATIENCE
    lock, is_taken = _lock(folder)
    while is_taken:
        if time.monotonic() > until:
            raise TimeoutError(f"Another process has been writing to {str(folder)!r} for a minute")
        time.sleep(0.002)
        lock, is_taken = _lock(folder)
    try:
        yield
    finally:
        _unlock(lock)


@contextlib.contextmanager
def stage_in(folder: Path, is_locked: bool = False) -> Iterator[Path]:
    """A fresh hidden directory, removed at the end; those that killed processes left go first.

    Args:
        folder: the directory to make it in.
        is_locked: bool. Whether the caller holds the folder's lock. Defaults to `False`.
    """
    # Under the lock: a stage that is made and not yet locked looks like a dead process's.
    with contextlib.nullcontext() if is_locked else locked(folder):
        _remove_stale(folder)
        stage = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        lock, _ = _lock(stage)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        _unlock(lock)


def _remove_stale(folder: Path) -> None:
    for stage in folder.glob(f"{PREFIX}*"):
        lock, is_taken = _lock(stage)
        with contextlib.suppress(OSError):
            is_dead = lock is not None or stage.stat().st_mtime < time.time() - _OLD
            if is_dead and not is_taken:
                shutil.rmtree(stage, ignore_errors=True)
        _unlock(lock)


def _lock(folder: Path) -> tuple[int | None, bool]:
    """A directory's lock, or `None`; and whether another holds it."""
    if fcntl is None:
        return None, False
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:
        return None, False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(number)
        return None, error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    return number, False


def _unlock(lock: int | None) -> None:
    if lock is not None:
        # Said, not left to `close`: a process that was forked meanwhile has the file open too.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)
