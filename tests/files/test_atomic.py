"""Files that are written whole or not at all."""

import os
from pathlib import Path

import pytest

from keras_mpt.files.atomic import write_together

OLD = {"a.json": b"old a", "b.bin": b"old b"}
NEW = {"a.json": b"new a", "b.bin": b"new b", "c.json": b"new c"}


def contents(directory):
    """Every file under `directory`, by its path from there."""
    files = [p for p in Path(directory).rglob("*") if p.is_file()]
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


@pytest.fixture
def target(tmp_path):
    """A directory with older files, one of which is not written anew."""
    target = tmp_path / "target"
    target.mkdir()
    for name, content in {**OLD, "notes.txt": b"mine"}.items():
        (target / name).write_bytes(content)
    return target


FULL_DISK = OSError(28, "No space left on device")


def watch(monkeypatch, name, fail_at=None, error=FULL_DISK):
    """The calls of `os.<name>` from now; the one with the number `fail_at` fails."""
    calls = []
    function = getattr(os, name)

    def failing(*args, **kwargs):
        calls.append(args)
        if len(calls) == fail_at:
            raise error
        return function(*args, **kwargs)

    monkeypatch.setattr(os, name, failing)
    return calls


def test_a_new_directory(tmp_path):
    write_together(tmp_path / "some" / "where", NEW)
    assert contents(tmp_path) == {f"some/where/{name}": value for name, value in NEW.items()}
    # Readable by others, as a directory that was made plainly would be.
    assert (tmp_path / "some" / "where").stat().st_mode & 0o777 == 0o755


def test_older_files_are_replaced_and_others_kept(target, tmp_path):
    write_together(str(target), NEW)
    assert contents(target) == {**NEW, "notes.txt": b"mine"}
    assert [p for p in tmp_path.rglob("*") if p.is_dir()] == [target]


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_full_disk_leaves_what_was_there(call, target, tmp_path, monkeypatch):
    before = contents(tmp_path)
    watch(monkeypatch, "fsync", call)
    with pytest.raises(OSError, match="No space left"):
        write_together(target, NEW)
    assert contents(tmp_path) == before
    assert [p for p in tmp_path.rglob("*") if p.is_dir()] == [target]


@pytest.mark.parametrize("error", [FULL_DISK, KeyboardInterrupt()], ids=["full", "interrupted"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_failing_move_is_undone(call, error, target, tmp_path, monkeypatch):
    """At the second and third call, files that were moved already are put back."""
    before = contents(tmp_path)
    watch(monkeypatch, "replace", call, error)
    with pytest.raises(type(error)):
        write_together(target, NEW)
    assert contents(tmp_path) == before
    assert [p for p in tmp_path.rglob("*") if p.is_dir()] == [target]


def test_a_new_directory_is_not_left_half_written(tmp_path, monkeypatch):
    watch(monkeypatch, "fsync", 2)
    with pytest.raises(OSError, match="No space left"):
        write_together(tmp_path / "target", NEW)
    assert list(tmp_path.iterdir()) == []


def test_moves_stay_within_the_directory(target, monkeypatch):
    """The directory may be a mount of its own, into which nothing can be moved from outside."""
    calls = watch(monkeypatch, "replace")
    write_together(target, NEW)
    assert len(calls) == len(NEW)
    assert all(Path(path).is_relative_to(target) for paths in calls for path in paths)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "target").write_bytes(b"mine")
    with pytest.raises(ValueError, match="`directory` should be a directory.*target', a file"):
        write_together(tmp_path / "target", NEW)
    assert contents(tmp_path) == {"target": b"mine"}
