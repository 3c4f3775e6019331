"""Generation gives the tokens of PEFT's logits, token for token: mixed tasks, greedy and beams.

PEFT's `generate` is no measure: it does not follow PEFT's logits with every version of transformers
(docs/parity.md).
"""

import keras
import numpy as np
import pytest

from tests.parity.families import ALL_ON
from tests.parity.generation import BASES, TASK_IDS, make_both, our_tokens, tokens_of_logits

NAMES = list(BASES) if keras.backend.backend() == ALL_ON else ["gpt2"]


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    return make_both(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("num_beams", [1, 3], ids=["greedy", "beam"])
def test_tokens_are_those_of_peft_s_logits(both, num_beams):
    model, ours = both
    found = our_tokens(ours, num_beams)
    np.testing.assert_array_equal(found, tokens_of_logits(model, TASK_IDS, num_beams))
    assert (found != tokens_of_logits(model, [1, 0, 2, 0], num_beams)).any()
