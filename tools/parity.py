"""Writes docs/parity.json and docs/parity.md: `make parity`.

It measures what the tests measure, with the same functions, on the backend that it runs on.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import keras

from tests.parity.families import ALL_ON, FAMILIES, TRAINED
from tools.machine import versions
from tools.parity_page import render

DOCS = Path(__file__).parents[1] / "docs"
JSON_FILE, DOCUMENT = DOCS / "parity.json", DOCS / "parity.md"
PACKAGES = ("keras", "keras-hub", "peft", "transformers", "torch")


def measure() -> dict[str, Any]:
    """All measurements, as JSON holds them."""
    from tests.parity.measure import TOLERANCE, base_difference, export_error, import_error
    from tests.parity.measure import make_pair as make
    from tests.parity.training import STEPS, training_error

    rows, moved = [], []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            pair = make(family, Path(folder))
            row = {"family": family.name, "task type": family.task_type, "note": family.note}
            row |= {"import": import_error(pair).error, "export": export_error(pair).error}
            row |= {"base": base_difference(pair), "training": None}
            if family.name in TRAINED:
                row["training"], least = training_error(pair)
                moved.append(least)
        rows.append(row)
    common = {"backend": keras.backend.backend(), "packages": versions(PACKAGES)}
    return {**common, "tolerance": TOLERANCE, "steps": STEPS, "moved": min(moved), "rows": rows}


def main() -> None:
    """Measures and writes both files."""
    if keras.backend.backend() != ALL_ON:
        raise SystemExit(f"set KERAS_BACKEND={ALL_ON}, which the tests measure all families on")
    report = measure()
    JSON_FILE.write_text(json.dumps(report, indent=1) + "\n")
    DOCUMENT.write_text(render(report))


if __name__ == "__main__":
    main()
