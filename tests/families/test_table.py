"""docs/families.md is what was measured, of every family, and nothing else."""

from tests.families.configurations import FAMILIES
from tests.families.exact import is_exact
from tests.families.measure import Measurement
from tools.families import PAGE, read
from tools.families_page import BACKENDS, render


def test_page_is_made_of_the_numbers():
    assert PAGE.read_text() == render(read())


def test_numbers_are_of_every_family_on_every_backend_and_exact():
    families = read()["families"]
    assert list(families) == list(FAMILIES)
    for name, by_backend in families.items():
        assert list(by_backend) == list(BACKENDS), name
        for backend, numbers in by_backend.items():
            assert is_exact(Measurement(**numbers)), (name, backend)
