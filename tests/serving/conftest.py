"""Pairs of our model and transformers', as the tests of parity make them."""

from tests.parity.conftest import pair_of  # noqa: F401
