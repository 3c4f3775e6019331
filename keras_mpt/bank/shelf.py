"""Where a bank's adapters are: in memory up to a budget, else in their directories."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_mpt.bank.adapter import BankAdapter
from keras_mpt.checks import received
from keras_mpt.files.paths import is_file_name

Read = Callable[[str, Path], BankAdapter]


class Shelf:
    """Adapters by their names, those asked for last in memory.

    Threads may ask at once. One that asks for an adapter keeps it as long as it works with it,
    whoever replaces or drops it meanwhile.

    Args:
        read: function of a name and a directory that gives an adapter.
        directory: path of a folder with an adapter's directory under each name, or `None`.
        max_bytes: int. What is kept in memory at most, or `None` for no limit.
    """

    def __init__(self, read: Read, directory: Path | None, max_bytes: int | None) -> None:
        self._read, self.directory, self.max_bytes = read, directory, max_bytes
        self._adapters: OrderedDict[str, BankAdapter] = OrderedDict()
        # Where each adapter that was loaded by its name came from.
        self._sources: dict[str, Path] = {}
        self._dropped: set[str] = set()
        self._nbytes = 0
        self._lock = threading.RLock()

    @property
    def names(self) -> list[str]:
        """The adapters in memory, the one asked for last at the end."""
        with self._lock:
            return list(self._adapters)

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        with self._lock:
            return self._nbytes

    def load(self, name: str, directory: str | os.PathLike[str]) -> BankAdapter:
        """Reads an adapter and keeps it under a name, in the place of one that had it.

        Raises:
            ValueError: an adapter that cannot be read or does not fit, or is larger than the
                budget: all stays as it is.
        """
        if not is_file_name(name):
            raise ValueError(
                "`name` should be a word without a slash, since 'adapter/task' names a task. "
                f"Received: name={received(name)}"
            )
        source = Path(directory)
        adapter = self._read(name, source)  # Outside the lock: others are answered meanwhile.
        if self.max_bytes is not None and adapter.nbytes > self.max_bytes:
            raise ValueError(
                f"`max_bytes` should be at least {adapter.nbytes}, what this adapter takes. "
                f"Received: max_bytes={self.max_bytes} for {str(source)!r}"
            )
        with self._lock:
            self._sources[name] = source
            self._dropped.discard(name)
            self._forget(name)
            self._adapters[name] = adapter
            self._nbytes += adapter.nbytes
            while self.max_bytes is not None and self._nbytes > self.max_bytes:
                self._forget(next(iter(self._adapters)))
        return adapter

    def drop(self, name: str) -> None:
        """Forgets an adapter: no row can name it until it is loaded again.

        Raises:
            ValueError: a name that no adapter has.
        """
        with self._lock:
            if self.find(name) is None:
                raise ValueError(f"`name` should be an adapter's. Received: name={received(name)}")
            self._forget(name)
            self._sources.pop(name, None)
            self._dropped.add(name)

    def find(self, name: Any) -> Path | None:
        """Where an adapter of a name is, or `None` where there is none."""
        with self._lock:
            if not isinstance(name, str) or name in self._dropped:
                return None
            if name in self._sources:
                return self._sources[name]
            if self.directory is None or not is_file_name(name):
                return None
            found = self.directory / name
            return found if found.is_dir() else None

    def get(self, name: str) -> BankAdapter | None:
        """An adapter, read anew where it is not in memory; `None` where there is none.

        Raises:
            ValueError: an adapter that cannot be read, or does not fit.
        """
        with self._lock:
            if name in self._adapters:
                self._adapters.move_to_end(name)
                return self._adapters[name]
            source = self.find(name)
        return None if source is None else self.load(name, source)

    def _forget(self, name: str) -> None:
        """Takes an adapter out of memory, if it is there."""
        adapter = self._adapters.pop(name, None)
        self._nbytes -= 0 if adapter is None else adapter.nbytes
