"""Kills amid a save, reads beside writers, and what they leave behind."""

import collections
import contextlib
import itertools
import os
import random
import signal
import tempfile
import time
from pathlib import Path

from tests.soak.adapters import held, make_pair


def main(kills: int = 300, reads: int = 1000) -> dict[str, object]:
    """Runs both, and returns how many of each kind were seen."""
    with tempfile.TemporaryDirectory() as folder:
        target, models = Path(folder) / "adapter", make_pair()
        models[1.0].save_adapter(target)
        seen = {
            f"{kills} kills": kill(models, target, kills),
            f"{reads} reads beside two writers": read_beside_writers(models, target, reads),
        }
        left = stages(folder)
        models[1.0].save_adapter(target, overwrite=True)
        seen["stages that they left, and after one more save"] = left, stages(folder)
    wrong = [kind for counts in list(seen.values())[:2] for kind in counts if kind not in models]
    assert not wrong and not stages(folder), seen
    return seen


def kill(models: dict, target: Path, times: int, seed: int = 0) -> collections.Counter:
    """What is read after each of so many kills of a process that saves one adapter and another."""
    start = time.monotonic()
    for model in models.values():
        model.save_adapter(target, overwrite=True)
    seconds = time.monotonic() - start
    rng, found = random.Random(seed), collections.Counter()
    for _ in range(times):
        with writer(models, target):
            time.sleep(rng.uniform(0, 10 * seconds))  # Its first saves are slower.
        found[held(target)] += 1
    return found


def read_beside_writers(models: dict, target: Path, reads: int) -> collections.Counter:
    """What is read while two processes save one adapter and another."""
    with writer(models, target), writer(models, target):
        return collections.Counter(held(target) for _ in range(reads))


@contextlib.contextmanager
def writer(models: dict, target: Path):
    """A process that saves the models over each other, once it has begun, until it is killed."""
    begun, begins = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(begins, b"!")
            for model in itertools.cycle(models.values()):
                model.save_adapter(target, overwrite=True)
        finally:
            os._exit(1)
    os.read(begun, 1)
    try:
        yield
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the writer failed"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(begun)
        os.close(begins)


def stages(folder: str | os.PathLike[str]) -> int:
    """How many directories under a folder were made to be moved away."""
    return len(list(Path(folder).rglob(".*")))
