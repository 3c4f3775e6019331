"""`python -m tests.soak [files] [fuzz] [threads]`: these parts, or all that there are.

A part is a module of this folder with a `main()`, which returns its figures by name and raises
where a promise is broken.
"""

import importlib
import pkgutil
import sys
import time
import warnings

import tests.soak

PARTS = ("files", "fuzz", "threads")


def main(names: list[str]) -> None:
    """Runs parts, and prints their figures."""
    there = {module.name for module in pkgutil.iter_modules(tests.soak.__path__)}
    warnings.simplefilter("ignore")
    for name in names or [part for part in PARTS if part in there]:
        start = time.time()
        figures = importlib.import_module(f"tests.soak.{name}").main()
        print(f"{name}: {time.time() - start:.0f} s")
        for what, figure in figures.items():
            print(f"  {what}: {figure}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
