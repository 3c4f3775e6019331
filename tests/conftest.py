"""What every test starts from."""

import os
from pathlib import Path

# Before anything imports PyTorch: on small models its threads wait for each other, the more so
# with a process per core, and tests take many times as long. What runs in a process of its own
# inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What JAX has compiled is kept for the other process and for the next run: programs are found by
# their content, so nothing stale is taken.
_COMPILED = Path(__file__).parents[1] / ".cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_COMPILED))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# Compiling is most of what tests on JAX cost, and their models are too small to win it back: a
# quarter less time where it was measured.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")

import keras  # noqa: E402
import pytest  # noqa: E402


def pytest_addoption(parser):
    """An option for what is too slow for each run."""
    parser.addoption(
        "--all-families",
        action="store_true",
        help="measure every backbone family on TensorFlow and JAX too, not one of each kind",
    )


@pytest.fixture(autouse=True)
def _seed():
    """The same random weights in every run."""
    keras.utils.set_random_seed(0)
