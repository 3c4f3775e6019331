"""Adapters that PEFT wrote give PEFT's logits here, for every family."""

from tests.parity.measure import TOLERANCE, base_difference, each_family, import_error


@each_family
def test_logits_are_peft_s(name, pair_of):
    pair = pair_of(name)
    base = base_difference(pair)
    if pair.family.as_keras_hub is None:
        assert base <= TOLERANCE
    else:
        # As stated in the table: keras-hub's model itself is another.
        assert TOLERANCE < base < 1e-3
    measured = import_error(pair)
    assert measured.error <= measured.limit
