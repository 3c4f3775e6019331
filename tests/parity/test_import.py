"""Adapters that PEFT wrote give PEFT's logits here, for every family."""

from tests.parity.measure import TOLERANCE, base_difference, each_family, import_error


@each_family
def test_logits_are_peft_s(name, pair_of):
    pair = pair_of(name)
    assert base_difference(pair) <= TOLERANCE
    assert import_error(pair) <= TOLERANCE
