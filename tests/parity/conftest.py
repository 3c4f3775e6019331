"""Pairs of models, made once however many tests measure them."""

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
