"""Damaged files, in a small form of `make fuzz`: each is refused, or loads as what was saved."""

import pytest

import keras_mpt
from keras_mpt.adapters.reading import read_adapter
from tests.marks import only_torch
from tests.soak import fuzz

pytestmark = only_torch


@pytest.mark.parametrize("what", [fuzz.ours, fuzz.states])
def test_damage_is_refused_or_without_effect(what, tmp_path):
    seen = what(tmp_path / "files", 2000 if what is fuzz.ours else 500)
    assert seen["refused"] > seen["loaded as saved"] > 0


@pytest.mark.parametrize("of_peft", [True, False])
def test_damage_where_there_are_no_checksums(of_peft, tmp_path):
    for load, times in (
        (lambda backbone, directory: read_adapter(directory), 500),
        (keras_mpt.load_adapter, 40),
    ):
        seen = fuzz.unguarded(tmp_path / str(times), times, of_peft, load)
        assert seen["refused"] > 0 and seen["loaded as saved"] > 0
