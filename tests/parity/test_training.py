"""The same steps of SGD give the same adapter as PEFT trained by PyTorch."""

import keras
import pytest

from tests.parity.families import KINDS
from tests.parity.measure import TOLERANCE
from tests.parity.training import training_error

# Compiling an encoder-decoder's training step alone takes JAX a quarter of a minute.
NAMES = [name for name in KINDS if (keras.backend.backend(), name) != ("jax", "bart")]


@pytest.mark.parametrize("name", NAMES)
def test_weights_after_training_are_peft_s(name, pair_of):
    trained = training_error(pair_of(name))
    assert trained.error <= TOLERANCE
    assert trained.moved > 1000 * TOLERANCE
