"""`.keras` and `.weights.h5` files: the old one or the new one, whoever is killed."""

import itertools
import os
import zipfile

import h5py
import keras
import numpy as np
import pytest

from tests.marks import only_torch
from tests.models import classifiers

pytestmark = only_torch


def value_in(path, model):
    """The value of each of P's numbers in a file."""
    if path.suffix == ".keras":
        model = keras.saving.load_model(path, compile=False)
    else:
        model.load_weights(path)
    return float(np.ptp(model.prompt.get_weights()[0])), float(model.prompt.get_weights()[0][0, 0])


def set_value(model, value):
    model.prompt.set_weights([np.full(w.shape, value) for w in model.prompt.get_weights()])


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
def test_a_kill_at_any_moment(name, tmp_path):
    model, other = classifiers.make(), classifiers.make()
    path, seen = tmp_path / name, []
    save = "save" if name == "m.keras" else "save_weights"
    set_value(model, 1.0)
    getattr(model, save)(path)
    old = path.read_bytes()
    assert value_in(path, other) == (0.0, 1.0)
    set_value(model, 2.0)
    for call in itertools.count(1):
        path.write_bytes(old)
        child = os.fork()
        if not child:
            try:
                die_at(call)
                getattr(model, save)(path)
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        seen.append((0.0, 1.0) if path.read_bytes() == old else value_in(path, other))
        if code == 0:
            break
    # The last one was not killed, and has removed what the others left.
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert seen == sorted(seen) and set(seen) == {(0.0, 1.0), (0.0, 2.0)} and len(seen) > 3


def die_at(call):
    """Ends this process, as a kill would, at a call of the system or of a library that writes."""
    count = itertools.count(1)

    def dying(owner, name):
        function = getattr(owner, name)

        def run(*args, **kwargs):
            if next(count) == call:
                os._exit(9)
            return function(*args, **kwargs)

        setattr(owner, name, run)

    for name in ("fsync", "replace", "rmdir"):
        dying(os, name)
    dying(zipfile.ZipFile, "writestr")
    dying(zipfile.ZipFile, "close")
    dying(h5py.File, "close")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    model = classifiers.make()
    model.save(tmp_path / "m.keras")
    before = (tmp_path / "m.keras").read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for file in ("m.keras", "new.keras"):
        with pytest.raises(OSError, match="No space left"):
            model.save(tmp_path / file)
    assert [p.name for p in tmp_path.iterdir()] == ["m.keras"]
    assert (tmp_path / "m.keras").read_bytes() == before


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_person_is_asked(answer, tmp_path, monkeypatch):
    model, path = classifiers.make(), tmp_path / "m.keras"
    path.write_bytes(b"mine")
    path.chmod(0o600)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    model.save(path, overwrite=False)
    assert (path.read_bytes() == b"mine") == (answer == "n")
    assert path.stat().st_mode & 0o777 == 0o600
    model.save(tmp_path / "other.keras", overwrite=False)
    assert zipfile.is_zipfile(tmp_path / "other.keras")


def test_what_keras_takes_beside_one_file(tmp_path):
    model = classifiers.make()
    model.save(tmp_path / "folder", zipped=False)
    assert (tmp_path / "folder" / "config.json").is_file()
    model.save_weights(tmp_path / "w.weights.json", max_shard_size=1)
    model.load_weights(tmp_path / "w.weights.json")
    (tmp_path / "link.keras").symlink_to(tmp_path / "m.keras")
    model.save(str(tmp_path / "link.keras"))
    assert (tmp_path / "link.keras").is_symlink() and zipfile.is_zipfile(tmp_path / "m.keras")
    callback = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras")
    callback.set_model(model)
    callback.on_epoch_end(0, {})
    assert zipfile.is_zipfile(tmp_path / "best.keras")
    with pytest.raises(ValueError, match="Invalid filepath extension"):
        model.save(tmp_path / "m.zip")
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "missing" / "m.keras")


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5"])
def test_h5_is_refused(name, tmp_path):
    model, path = classifiers.make(), tmp_path / name
    with pytest.raises(ValueError) as raised:
        model.save(path)
    assert str(raised.value) == (
        "`filepath` should end in .keras: Keras could not load a model of this library from an .h5 "
        "file. `save_weights` writes .weights.h5, the weights alone. Received: "
        f"filepath={path!r}"
    )
    assert not path.exists()
    with pytest.raises(ValueError, match="`filepath` should end in .keras"):
        keras.saving.save_model(model, path)
