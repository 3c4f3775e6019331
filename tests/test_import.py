"""Importing keras_mpt has no side effects."""

import os
import subprocess
import sys

import keras
import pytest

CODE = """
import sys, warnings, logging
import keras
before = set(sys.modules), list(logging.root.handlers), list(warnings.filters)
import keras_mpt
assert logging.root.handlers == before[1] and warnings.filters == before[2]
new = {name.split(".")[0] for name in set(sys.modules) - before[0]}
print(",".join(sorted(new & {"tensorflow", "jax", "torch", "keras_hub", "peft", "transformers",
                             "grain", "matplotlib"})))
"""


def test_import_brings_in_no_backend_and_no_optional_package():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == ""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="one backend is enough: it is JAX's")
def test_import_on_jax_leaves_the_other_backends_alone():
    code = "import sys, keras_mpt; print([m for m in ('tensorflow', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr[-2000:]
