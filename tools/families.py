"""Measures the families and writes docs/families.json and docs/families.md.

    python -m tools.families jax tensorflow torch

Each backend runs in a process of its own, because Keras fixes it at import. What is measured takes
the place of what an earlier run measured on that backend.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.families_page import BACKENDS, render

DOCS = Path(__file__).parents[1] / "docs"
NUMBERS, PAGE = DOCS / "families.json", DOCS / "families.md"


def measure_here() -> None:
    """Measures every family on the backend of this process, and writes the numbers."""
    import keras
    import keras_hub

    from tests.families import measure
    from tests.families.configurations import FAMILIES

    found = {}
    for name, family in FAMILIES.items():
        keras.utils.set_random_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            measured = measure.measure(family.build(), Path(folder))
        found[name] = dataclasses.asdict(measured)
        print(f"{keras.backend.backend()}: {name}", flush=True)
    old = read()["families"]
    numbers = {
        "sizes": {
            "keras": keras.__version__,
            "keras_hub": keras_hub.__version__,
            "length": measure.LENGTH,
            "tokens": measure.TOKENS,
            "rows": measure.ROWS,
        },
        "families": {
            name: {
                backend: found[name] if backend == keras.backend.backend() else old[name][backend]
                for backend in BACKENDS
                if backend == keras.backend.backend() or backend in old.get(name, {})
            }
            for name in FAMILIES
        },
    }
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")


def read() -> dict[str, Any]:
    """What was measured last."""
    return json.loads(NUMBERS.read_text()) if NUMBERS.exists() else {"families": {}}


def main(backends: list[str]) -> None:
    """Measures on each backend in turn, then writes the page."""
    for backend in backends:
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tools.families", "--here"],
            env={**os.environ, "KERAS_BACKEND": backend},
            check=True,
        )
    PAGE.write_text(render(read()))


if __name__ == "__main__":
    if sys.argv[1:] == ["--here"]:
        measure_here()
    else:
        main(sys.argv[1:])
