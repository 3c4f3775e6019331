"""Finished runs, one JSON line each: what was run is not run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
# What a run is; the rest of a line is what came of it.
INPUTS = ("stage", "method", "task", "shots", "seed", "settings")


class Log:
    """The lines of a file, and the file.

    Args:
        file: path of the log, made with its folder where it is missing. A last line that is not
            whole, of a program that was killed, is cut off.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            file.write_text(whole, encoding="utf-8")
        self.entries: list[Entry] = [json.loads(line) for line in whole.splitlines()]
        self._read = len(whole.encode())

    def refresh(self) -> None:
        """Reads what other processes have added."""
        if not self.file.exists():
            return
        with self.file.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        self.entries += [json.loads(line) for line in whole.splitlines()]

    def find(self, inputs: Entry) -> Entry | None:
        """The last run of these inputs, or `None`."""
        wanted = key(inputs)
        return next((e for e in reversed(self.entries) if key(e) == wanted), None)

    def add(self, entry: Entry) -> None:
        """Appends a finished run."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.refresh()


def steps_of(entry: Entry) -> int:
    """A run's steps: on a target some methods have a multiple of the others'."""
    settings = entry["settings"]
    return int(settings["steps"] * settings.get("times", 1))


def key(entry: Entry) -> str:
    """A run's inputs as one string."""
    return json.dumps({name: entry.get(name) for name in INPUTS}, sort_keys=True)
