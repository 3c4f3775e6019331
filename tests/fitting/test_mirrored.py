"""Two devices train what one does."""

import subprocess
import sys

import keras
import pytest


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it is TensorFlow's")
def test_two_devices_train_what_one_does():
    command = [sys.executable, "-m", "tests.fitting.mirrored"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]
