"""What every test starts from."""

import gc
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

# The same of TensorFlow's XLA, which `fit` and `generate` take: a quarter less time.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

import pytest  # noqa: E402

# On TensorFlow XLA takes two thirds of a first `fit`. Where it may matter who compiles the
# graph, and in the tests of what users do first, "auto" means XLA, as users have it.
_WITH_XLA = (
    "decoding/test_generate.py",
    "decoding/test_score.py",
    "families/",
    "fitting/test_whole_steps.py",
    "models/test_text_classifier.py",
    "parity/",
    "saving/test_saving.py",
)


def pytest_addoption(parser):
    """An option for what is too slow for each run."""
    parser.addoption(
        "--all-families",
        action="store_true",
        help="measure every backbone family on TensorFlow and JAX too, not one of each kind",
    )
    parser.addoption(
        "--all-ways",
        action="store_true",
        help="train on several devices and in several processes in every way that there is",
    )


# Two processes share the files, so what takes long must not come last: these few-test files first.
_FIRST = (
    "saving/test_saving.py",
    "training/test_resume.py",
    "test_quickstart.py",
    "test_serve.py",
    "models/test_shared_prompts.py",
    "training/test_distillation.py",
    "benchmarks/test_parts.py",
    "decoding/test_generate.py",
    "decoding/test_score.py",
    "families/test_scoring.py",
    "families/test_decoder_cache.py",
)


def _name(path):
    """A test file's name, from this folder."""
    return Path(os.path.relpath(path, Path(__file__).parent)).as_posix()


def pytest_collection_modifyitems(items):
    """Slow files first; all others in their order."""
    items.sort(key=lambda item: _name(item.path) not in _FIRST)


def pytest_collection_finish():
    """What was imported stays: looking through it for garbage takes most of a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seed():
    """The same random weights in every run."""
    import keras  # Not above: the process that hands out the tests needs none.

    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _compiler(request):
    """What "auto" means in `compile`."""
    import keras

    keeps = keras.backend.backend() != "tensorflow" or _name(request.path).startswith(_WITH_XLA)
    with pytest.MonkeyPatch.context() as patch:
        if not keeps:
            patch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda model: False)
        yield
