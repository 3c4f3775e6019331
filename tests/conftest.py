"""What every test starts from."""

import keras
import pytest


@pytest.fixture(autouse=True)
def _seed():
    """The same random weights in every run."""
    keras.utils.set_random_seed(0)
