"""docs/benchmarks/ says what was measured, and what fails is told."""

import json
import xml.etree.ElementTree
from types import SimpleNamespace

import pytest

from benchmarks import gpu, report
from benchmarks.cells import chart_of, lettered
from benchmarks.gpu_page import on_gpu
from benchmarks.page import render
from benchmarks.report import BACKENDS, FOLDER, GPUS, PAGE, PROCESSORS, known
from tools.backends import NAMES

NUMBERS_NOW = known(FOLDER)
GPUS_NOW = json.loads((FOLDER / GPUS).read_text()) if (FOLDER / GPUS).exists() else {}


def test_page_is_made_of_the_numbers():
    assert (FOLDER / PAGE).read_text() == render(NUMBERS_NOW, GPUS_NOW)


@pytest.mark.parametrize("quick", [True, False])
def test_a_quick_run_is_shown_as_one(quick):
    page = render([{**NUMBERS_NOW[0], "quick": quick}], {})
    assert ("Its numbers mean nothing" in page) is quick


def test_outputs_agreed_wherever_they_were_compared():
    for processor in NUMBERS_NOW:
        for results in processor["results"].values():
            for result in results.values():
                assert report.agrees(result)


def test_compiled_once_an_epoch():
    for processor in NUMBERS_NOW:
        for backend, found in processor["results"].get("training", {}).items():
            assert found["compilations"] == (None if backend == "torch" else 1)


def test_charts_show_every_case_and_backend():
    pytest.importorskip("matplotlib", reason="charts are drawn with it")
    for letter, processor in lettered(NUMBERS_NOW).items():
        results = processor["results"].get("training", {})
        file = FOLDER / chart_of("training", letter)
        assert file.exists() is bool(results)
        drawn = "".join(xml.etree.ElementTree.parse(file).getroot().itertext() if results else [])
        for row in (row for found in results.values() for row in found["rows"]):
            assert row["case"] in drawn
        for name in ("PEFT", *(NAMES[backend] for backend in results)):
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
    file = tmp_path / "this.json"
    file.write_text(json.dumps({"results": {"imports": {"tensorflow": {"seconds": [1.0]}}}}))
    failed = report._measure(file, given)
    assert failed == ["imports on torch", "adapters on jax", "adapters on torch"]
    written = json.loads(file.read_text())
    assert written["results"] == {
        "imports": {"tensorflow": {"seconds": [1.0]}, "jax": {"seconds": {}}},
        "adapters": {"jax": {"rows": [{"agrees": False}]}},
    }
    assert set(BACKENDS) == {"tensorflow", "jax", "torch"}


def a_processor(name, seconds):
    """A report of one case, and of a second where there are seconds for it."""
    row = {"attention": "sdpa", "difference": 1e-6, "agrees": True}
    rows = [
        {**row, "case": f"case {i}", "seconds": {"peft": [2.0], "ours": [s], "floor": [1.0]}}
        for i, s in enumerate(seconds)
    ]
    training = {"torch": {"rows": rows, "compilations": None}}
    return {
        "machine": name, "threads": 2, "packages": {}, "quick": False,
        "results": {"training": training},
    }  # fmt: skip


def test_each_kind_of_processor_has_a_column():
    page = render([a_processor("One", [1.0]), a_processor("Other, AMX", [4.0, 0.5])], {})
    assert "- **A**: One; 2 threads" in page and "- **B**: Other, AMX; 2 threads" in page
    assert "| case | backend | A | B |" in page
    one, other = "2.00 (2.00 to 2.00)", "0.50 (0.50 to 0.50)"
    assert f"| training: case 0 | PyTorch | {one} | {other} |" in page
    assert "| training: case 1 | PyTorch |  | 4.00 (4.00 to 4.00) |" in page
    assert "| case 0 | PyTorch, A | 2.00 s | 1.00 s |" in page
    assert "| case 0 | PyTorch, B | 2.00 s | 4.00 s |" in page
    assert "](training_a.svg)" in page and "](training_b.svg)" in page


def test_a_run_replaces_the_numbers_of_its_own_kind_of_processor_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "kind_of_processor", lambda: "New, AMX")
    old, new = tmp_path / PROCESSORS / "old.json", tmp_path / PROCESSORS / "new-amx.json"
    old.parent.mkdir()
    old.write_text(json.dumps({"machine": "Old", "results": {}}))
    assert report._file(tmp_path) == new
    monkeypatch.setattr(report, "_run", lambda part, backend, quick: {"seconds": {}})
    given = SimpleNamespace(parts=["imports"], backends=["jax"], quick=False)
    assert report._measure(new, given) == []
    assert [found["machine"] for found in known(tmp_path)] == ["New, AMX", "Old"]


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
