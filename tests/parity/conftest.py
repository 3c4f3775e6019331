"""Pairs of models, made once however many tests measure them."""

import keras
import pytest

from tests.parity import families


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory):
    """Function from a family's name to its `measure.Pair`."""
    made = {}
    by_name = {family.name: family for family in families.FAMILIES}

    def pair_of(name):
        from tests.parity.measure import make_pair

        if name not in made:
            made[name] = make_pair(by_name[name], tmp_path_factory.mktemp(name))
        return made[name]

    return pair_of


@pytest.fixture
def pair(request, pair_of):
    """The pair of the family that a test is parametrized by."""
    return pair_of(request.param)


def pytest_generate_tests(metafunc):
    """Tests of a `pair` run for all families that this backend is measured on."""
    names = [family.name for family in families.measured_on(keras.backend.backend())]
    if "pair" in metafunc.fixturenames:
        metafunc.parametrize("pair", names, indirect=True)
