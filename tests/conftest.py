"""What every test starts from."""

import keras
import pytest


def pytest_addoption(parser):
    """An option for what is too slow for each run."""
    parser.addoption(
        "--all-families",
        action="store_true",
        help="measure every backbone family on TensorFlow and PyTorch too, not one of each kind",
    )


@pytest.fixture(autouse=True)
def _seed():
    """The same random weights in every run."""
    keras.utils.set_random_seed(0)
