"""The same steps of SGD give the same adapter as PEFT trained by PyTorch."""

import keras
import pytest

from tests.parity.families import ALL_ON, KINDS, TRAINED
from tests.parity.measure import TOLERANCE
from tests.parity.training import training_error

BACKEND = keras.backend.backend()
NAMES = TRAINED if BACKEND == ALL_ON else KINDS
if BACKEND == "jax":
    # Compiling an encoder-decoder's training step alone takes JAX a quarter of a minute.
    NAMES = [name for name in NAMES if name != "bart"]


@pytest.mark.parametrize("name", NAMES)
def test_weights_after_training_are_peft_s(name, pair_of):
    trained = training_error(pair_of(name))
    assert trained.error <= TOLERANCE
    assert trained.moved > 1000 * TOLERANCE
