"""docs/benchmarks/ says what was measured, and what fails is told."""

import json
import xml.etree.ElementTree
from types import SimpleNamespace

import pytest

from benchmarks import report
from benchmarks.page import render
from benchmarks.report import BACKENDS, FOLDER, NUMBERS, PAGE

NUMBERS_NOW = json.loads((FOLDER / NUMBERS).read_text())


def test_page_is_made_of_the_numbers():
    assert (FOLDER / PAGE).read_text() == render(NUMBERS_NOW)


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_run_is_shown_as_one(quick):
    page = render({**NUMBERS_NOW, "quick": quick})
    assert ("Its numbers mean nothing" in page) is quick


def test_outputs_agreed_wherever_they_were_compared():
    for results in NUMBERS_NOW["results"].values():
        for result in results.values():
            assert report.agrees(result)


def test_compiled_once_an_epoch():
    counts = {b: r["compilations"] for b, r in NUMBERS_NOW["results"]["training"].items()}
    assert counts == {"tensorflow": 1, "jax": 1, "torch": None}


def test_charts_show_every_case_and_backend():
    pytest.importorskip("matplotlib", reason="charts are drawn with it")
    drawn = "".join(xml.etree.ElementTree.parse(FOLDER / "training.svg").getroot().itertext())
    for result in NUMBERS_NOW["results"]["training"].values():
        for row in result["rows"]:
            assert row["case"] in drawn
    for name in ("TensorFlow", "JAX", "PyTorch", "PEFT"):
        assert name in drawn


def test_numbers_are_kept_part_by_part_and_failures_told(tmp_path, monkeypatch):
    found = {
        ("imports", "jax"): {"seconds": {}},
        ("adapters", "jax"): {"rows": [{"agrees": False}]},
    }
    monkeypatch.setattr(report, "_run", lambda part, backend, quick: found.get((part, backend)))
    given = SimpleNamespace(
        parts=("imports", "adapters"), backends=("jax", "torch"), quick=True, folder=tmp_path
    )
    kept = {"results": {"imports": {"tensorflow": {"seconds": {"old": [1.0]}}}}}
    failed = report._measure(kept, given)
    assert failed == ["imports on torch", "adapters on jax", "adapters on torch"]
    written = json.loads((tmp_path / NUMBERS).read_text())
    assert written["results"] == {
        "imports": {"tensorflow": {"seconds": {"old": [1.0]}}, "jax": {"seconds": {}}},
        "adapters": {"jax": {"rows": [{"agrees": False}]}},
    }
    assert set(BACKENDS) == {"tensorflow", "jax", "torch"}
