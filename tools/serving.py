"""Measures exports and writes docs/serving.json and docs/serving.md: `make serving`.

    python -m tools.serving jax tensorflow torch
    python -m tools.serving --missing jax     # only what was not measured yet

Each backend runs in a process of its own, because Keras fixes it at import. What is measured takes
the place of what an earlier run measured on that backend; without a backend only the page is
written anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.machine import versions
from tools.serving_page import BACKENDS, render

DOCS = Path(__file__).parents[1] / "docs"
NUMBERS, PAGE = DOCS / "serving.json", DOCS / "serving.md"
PACKAGES = (
    "keras",
    "keras-hub",
    "tensorflow",
    "jax",
    "torch",
    "tf2onnx",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
)


def measure_here(missing: bool) -> None:
    """Measures every case in every format of this process's backend, and writes the numbers.

    Args:
        missing: bool. Whether to leave out what was measured before.
    """
    import keras

    from tests.exporting import cases
    from tests.exporting.measure import formats_here, measure

    here = keras.backend.backend()
    for name in cases.CASES:
        known = read()["measured"].get(here, {}).get(name, {}) if missing else {}
        formats = [format for format in formats_here() if format not in known]
        keras.utils.set_random_seed(0)
        model = cases.make(name) if formats else None
        for format in formats:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(model, format, Path(folder), cases.inputs)
            _note(here, name, format, found)
            print(f"{here}: {name}, {format}: {found}", flush=True)


def _note(backend: str, case: str, format: str, found: dict[str, Any]) -> None:
    """Writes one measurement in the place of the older one."""
    from tests.exporting.cases import CASES

    measured = read()["measured"]
    measured.setdefault(backend, {}).setdefault(case, {})[format] = found
    in_order = {
        b: {name: measured[b][name] for name in CASES if name in measured[b]}
        for b in BACKENDS
        if b in measured
    }
    numbers = {"packages": versions(PACKAGES), "measured": in_order}
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")


def read() -> dict[str, Any]:
    """What was measured last."""
    return json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {"measured": {}}


def main(backends: list[str], missing: bool) -> None:
    """Measures on each backend in turn, then writes the page."""
    how = ["--here", *(["--missing"] if missing else [])]
    for backend in backends:
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tools.serving", *how],
            env={**os.environ, "KERAS_BACKEND": backend},
            check=True,
        )
    PAGE.write_text(render(read()))


if __name__ == "__main__":
    only_missing = "--missing" in sys.argv
    if "--here" in sys.argv:
        measure_here(only_missing)
    else:
        main([name for name in sys.argv[1:] if name in BACKENDS], only_missing)
