"""Damaged files: each is refused by a `ValueError`, or loads as what was saved."""

import collections
import json
import random
import tempfile
import warnings
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import keras_mpt
from keras_mpt.adapters.reading import Adapter, read_adapter
from keras_mpt.files.adapter_files import CHECKSUM
from keras_mpt.files.config_files import OWN_CONFIG_NAME
from keras_mpt.files.state_dict import SAFETENSORS_NAME
from keras_mpt.training.run_state import read_state, write_state
from tests.models import classifiers
from tests.soak.mutations import mutated

# What of our own fields decides what an adapter is.
OWN = ("task_names", "num_classes", "pooling", "head_config", "prompt_position")


def main(times: int = 10_000) -> dict[str, object]:
    """Runs all, and returns how many were refused, and how many loaded as they were saved."""
    with tempfile.TemporaryDirectory() as folder:
        seen = {f.__name__: f(Path(folder) / f.__name__, times) for f in (ours, states)}
        for of_peft in (True, False):
            name = "of PEFT's form" if of_peft else "without checksums"
            seen[name] = unguarded(
                Path(folder) / name, times // 10, of_peft, keras_mpt.load_adapter
            )
    return seen


def ours(directory: Path, times: int, seed: int = 0) -> collections.Counter:
    """Adapters that keras_mpt saved."""
    classifiers.make().save_adapter(directory)
    wanted = meaning(read_adapter(directory))
    return fuzz(directory, times, seed, lambda: same(meaning(read_adapter(directory)), wanted))


def unguarded(directory: Path, times: int, of_peft: bool, load, seed: int = 1):
    """Adapters of PEFT's form, or as keras_mpt saved them before it had checksums.

    Other numbers may load. What is refused is refused by a `ValueError`, and nothing else happens.
    """
    model = classifiers.make("shared head" if of_peft else "heads", prompt_position="before")
    model.save_adapter(directory)
    state = {name: np.array(v) for name, v in read_adapter(directory).state.items()}
    save_file(state, directory / SAFETENSORS_NAME, metadata={"format": "pt"})
    own = directory / OWN_CONFIG_NAME
    if of_peft:
        own.unlink()
    else:
        values = json.loads(own.read_text())
        own.write_text(json.dumps({k: v for k, v in values.items() if k != CHECKSUM}))
    return fuzz(directory, times, seed, lambda: load(model.backbone, directory))


def states(directory: Path, times: int, seed: int = 2) -> collections.Counter:
    """States of an interrupted run."""
    about = {"epoch": 1, "step": 2, "mix_epoch": 1, "stopped": False, "run": {"model": "x"}}
    values = {
        f"{k}/{i}": np.full((2, 3), i + 1.0) for k in ("trained", "optimizer") for i in (0, 1)
    }
    write_state(directory, {**about, "logs": [[0, {"loss": 0.5}]]}, values)
    wanted = read_state(directory)

    def load():
        found = read_state(directory)  # `None` where the file is gone: the run starts anew.
        if found is not None:
            assert found[0] == wanted[0]
            same(found[1], wanted[1])

    return fuzz(directory, times // 4, seed, load)


def fuzz(directory: Path, times: int, seed: int, load) -> collections.Counter:
    """Loads so many damaged copies of a directory; an `AssertionError` names the damage."""
    files = {p.name: p.read_bytes() for p in directory.iterdir()}
    rng, seen, dirty = random.Random(seed), collections.Counter(), set()
    for i in range(times):
        what, damaged = mutated(files, rng)
        for name in {n for n in files if damaged.get(n) != files[n]} | dirty:
            (directory / name).unlink(missing_ok=True)
            if name in damaged:
                (directory / name).write_bytes(damaged[name])
        dirty = {n for n in files if damaged.get(n) != files[n]}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load()
            seen["loaded as saved"] += 1
        except ValueError as error:
            assert "Received: " in str(error), (i, what, error)
            seen["refused"] += 1
        except Exception as error:
            raise AssertionError(f"mutation {i} of seed {seed}: {what}: {error!r}") from error
    return seen


def meaning(adapter: Adapter) -> dict[str, object]:
    """All that a loaded adapter is."""
    config = adapter.config
    return {
        **adapter.state,
        "own": [adapter.own[name] for name in OWN],
        "config": (type(config), config.task_type, config.task_names, config.prompt_position),
        "sizes": (config.num_virtual_tokens, config.submodules, config.num_tasks, config.num_ranks),
    }


def same(found: dict, wanted: dict) -> None:
    """Refuses any difference."""
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found[name], value, strict=True)
        else:
            assert found[name] == value, (name, found[name], value)
