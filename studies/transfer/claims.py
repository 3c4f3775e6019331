"""Several processes at one list of runs: each takes those that no other is at."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

from studies.transfer.log import Entry, key


@contextlib.contextmanager
def claim(folder: Path, run: Entry) -> Iterator[bool]:
    """Whether the run is ours to do while this lasts; a process that dies gives up its claims."""
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(key(run).encode()).hexdigest()[:24]
    with (folder / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Waits until no other process is at what has this name."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
