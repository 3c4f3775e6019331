"""docs/benchmarks/ says what was measured, and what fails is told."""

import json
import xml.etree.ElementTree
from types import SimpleNamespace

import pytest

from benchmarks import gpu, report
from benchmarks.gpu_page import on_gpu
from benchmarks.page import render
from benchmarks.report import BACKENDS, FOLDER, GPUS, NUMBERS, PAGE

NUMBERS_NOW = json.loads((FOLDER / NUMBERS).read_text())
GPUS_NOW = json.loads((FOLDER / GPUS).read_text()) if (FOLDER / GPUS).exists() else {}


def test_page_is_made_of_the_numbers():
    assert (FOLDER / PAGE).read_text() == render(NUMBERS_NOW, GPUS_NOW)


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_run_is_shown_as_one(quick):
    page = render({**NUMBERS_NOW, "quick": quick}, {})
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


def a_gpus_rows():
    """Rows as they come from a run that was broken off: two cases, of which one side failed."""
    (kind, case), (_, other) = gpu.jobs(False)[:2]
    row = {"kind": kind, "backend": "torch", "difference": 2e-6}
    whole = {"seconds": {"peft": [0.3, 0.2, 0.4], "ours": [0.1, 0.1, 0.1]}}
    whole["bytes"] = {"peft": 10 * 2**20, "ours": 4 * 2**20}
    half = {"seconds": {"ours": [0.05]}, "bytes": {"ours": None}, "failed": {"peft": "no room"}}
    device = {"rows": [], "packages": {"torch": "2.0"}, "quick": False}
    for name, found in ((gpu.label(other), half), (gpu.label(case), whole)):
        gpu.keep(device, {**row, "case": name, **found}, False)
    return device


def test_a_gpus_rows_are_shown_with_what_failed_and_what_is_missing():
    page = on_gpu({"A card": a_gpus_rows()})
    assert "### A card" in page and "With torch 2.0." in page
    lines = [line for line in page.splitlines() if line.startswith("| ") and "PyTorch" in line]
    assert len(lines) == 2 and lines[0].startswith("| GPT-2 medium, L 100, B 64, S 64 | PyTorch |")
    assert "| 0.30 s | 0.10 s | 3.00 (2.00 to 4.00) | 10 MiB | 4 MiB | 0.40 | 2e-06 | 3 |" in page
    assert "| failed | 50 ms |  |" in page and "PyTorch, PEFT: `no room`" in page
    assert "for want of time: training, GPT-2 medium, L 100, B 64, S 64, JAX;" in page
    assert "Not run yet" in on_gpu({}) and "Not run yet" not in page


def test_a_gpus_row_replaces_the_older_one():
    device = a_gpus_rows()
    new = {**device["rows"][0], "seconds": {"peft": [1.0], "ours": [1.0]}}
    gpu.keep(device, new, False)
    assert len(device["rows"]) == 2 and device["rows"][0] == new
