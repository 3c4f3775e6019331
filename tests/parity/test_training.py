"""The same steps of SGD give the same adapter as PEFT trained by PyTorch."""

import pytest

from tests.parity.families import KINDS
from tests.parity.measure import TOLERANCE
from tests.parity.training import training_error


@pytest.mark.parametrize("name", KINDS)
def test_weights_after_training_are_peft_s(name, pair_of):
    trained = training_error(pair_of(name))
    assert trained.error <= TOLERANCE
    assert trained.moved > 1000 * TOLERANCE
