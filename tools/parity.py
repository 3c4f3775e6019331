"""Writes docs/parity.json and docs/parity.md: `make parity`.

It measures what the tests measure, with the same functions, on the backend that it runs on. With
`generation` as its argument it only adds what `generate` does with the versions installed, which
`make test-latest` has newer ones of: `.venv-latest/bin/python -m tools.parity generation`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras

from tests.parity.families import ALL_ON, FAMILIES, TRAINED
from tools.machine import versions
from tools.parity_page import OWN, render

DOCS = Path(__file__).parents[1] / "docs"
JSON_FILE, DOCUMENT = DOCS / "parity.json", DOCS / "parity.md"
PACKAGES = ("keras", "keras-hub", "peft", "transformers", "torch")


def measure() -> dict[str, Any]:
    """All measurements, as JSON holds them."""
    from tests.parity.measure import (
        TOLERANCE,
        base_difference,
        export_error,
        import_error,
        own_difference,
    )
    from tests.parity.measure import make_pair as make
    from tests.parity.training import STEPS, training_error

    rows, moved = [], []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            pair = make(family, Path(folder))
            row = {"family": family.name, "task type": family.task_type, "note": family.note}
            row |= {"import": import_error(pair), "export": export_error(pair)}
            row |= {"base": base_difference(pair), OWN: own_difference(pair), "training": None}
            if family.name in TRAINED:
                row["training"], least = training_error(pair)
                moved.append(least)
        rows.append(row)
    common = {"backend": keras.backend.backend(), "packages": versions(PACKAGES)}
    return {**common, "tolerance": TOLERANCE, "steps": STEPS, "moved": min(moved), "rows": rows}


def measure_generation() -> list[dict[str, Any]]:
    """Whose greedy tokens are those of PEFT's logits, with the versions installed."""
    from tests.parity.generation import BASES, generate_follows_logits

    rows = []
    for name in BASES:
        with tempfile.TemporaryDirectory() as folder:
            shares = generate_follows_logits(name, Path(folder))
        rows.append({**versions(("transformers", "peft")), "model": name, **shares})
    return rows


def with_generation(report: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A report with these rows in the place of those of the same versions."""
    new = {(row["transformers"], row["peft"]) for row in rows}
    old = [r for r in report.get("generation", []) if (r["transformers"], r["peft"]) not in new]
    rows = sorted([*old, *rows], key=lambda row: row["transformers"])
    return {**report, "generation": rows}


def main() -> None:
    """Measures and writes both files."""
    if keras.backend.backend() != ALL_ON:
        raise SystemExit(f"set KERAS_BACKEND={ALL_ON}, which the tests measure all families on")
    before = json.loads(JSON_FILE.read_text())
    report = before
    if sys.argv[1:] != ["generation"]:
        report = {**measure(), "generation": before.get("generation", [])}
    report = with_generation(report, measure_generation())
    JSON_FILE.write_text(json.dumps(report, indent=1) + "\n")
    DOCUMENT.write_text(render(report))


if __name__ == "__main__":
    main()
