"""Where a bank's adapters are: in memory up to a budget, else in their directories."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_mpt.bank.adapter import BankAdapter
from keras_mpt.checks import received
from keras_mpt.files.paths import is_file_name


class Shelf:
    """Adapters by their names, those asked for last in memory.

    Threads may ask at once. One that asks for an adapter keeps it as long as it works with it,
    whoever replaces or drops it meanwhile.

    Args:
        read: function of a name and a directory that gives an adapter.
        accept: function of an adapter that is about to be kept, which may refuse it.
        directory: path of a folder with an adapter's directory under each name, or `None`.
        max_bytes: int. What is kept in memory at most, or `None` for no limit.
    """

    def __init__(
        self,
        read: Callable[[str, Path], BankAdapter],
        accept: Callable[[BankAdapter], None],
        directory: Path | None,
        max_bytes: int | None,
    ) -> None:
        self._read, self._accept = read, accept
        self._directory, self._max_bytes = directory, max_bytes
        self._adapters: collections.OrderedDict[str, BankAdapter] = collections.OrderedDict()
        # Where each adapter that was loaded by its name came from; `None` for one that is dropped.
        self._sources: dict[str, Path | None] = {}
        # How often each name was loaded or dropped: what was read before is of another adapter.
        self._changes: collections.Counter[str] = collections.Counter()
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

    def load(self, name: Any, directory: Any) -> None:
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
        # Absolute: it is read again, wherever the process works by then.
        source = absolute("directory", directory)
        adapter = self._read(name, source)  # Outside the lock: others are answered meanwhile.
        with self._lock:
            self._keep(adapter, source)
            self._changes[name] += 1
            self._sources[name] = source

    def drop(self, name: Any) -> None:
        """Forgets an adapter: no row can name it until it is loaded again.

        Raises:
            ValueError: a name that no adapter has.
        """
        with self._lock:
            if self._find(name) is None:
                raise ValueError(f"`name` should be an adapter's. Received: name={received(name)}")
            self._forget(name)
            self._changes[name] += 1
            self._sources[name] = None

    def get(self, name: str) -> BankAdapter | None:
        """An adapter, read anew where it is not in memory; `None` where there is none.

        Raises:
            ValueError: an adapter that cannot be read, or does not fit.
        """
        while True:
            with self._lock:
                if name in self._adapters:
                    self._adapters.move_to_end(name)
                    return self._adapters[name]
                source, change = self._find(name), self._changes[name]
            if source is None:
                return None
            adapter = self._read(name, source)
            with self._lock:
                if self._changes[name] == change and name not in self._adapters:
                    self._keep(adapter, source)
                    return adapter

    def _find(self, name: Any) -> Path | None:
        """Where an adapter of a name is, or `None` where there is none."""
        if not is_file_name(name):
            return None
        if name in self._sources:
            return self._sources[name]
        found = None if self._directory is None else self._directory / name
        return found if found is not None and found.is_dir() else None

    def _keep(self, adapter: BankAdapter, source: Path) -> None:
        """Takes an adapter into memory, and lets those leave that were asked for longest ago."""
        if self._max_bytes is not None and adapter.nbytes > self._max_bytes:
            raise ValueError(
                f"`max_bytes` should be at least {adapter.nbytes}, what this adapter takes. "
                f"Received: max_bytes={self._max_bytes} for {str(source)!r}"
            )
        self._accept(adapter)
        self._forget(adapter.name)
        self._adapters[adapter.name] = adapter
        self._nbytes += adapter.nbytes
        while self._max_bytes is not None and self._nbytes > self._max_bytes:
            self._forget(next(iter(self._adapters)))

    def _forget(self, name: str) -> None:
        """Takes an adapter out of memory, if it is there."""
        adapter = self._adapters.pop(name, None)
        self._nbytes -= 0 if adapter is None else adapter.nbytes


def absolute(argument: str, path: Any) -> Path:
    """A path from the root on; refuses what is none."""
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"`{argument}` should be a path. Received: {argument}={received(path)}")
    return Path(path).absolute()
