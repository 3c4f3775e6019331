"""Checks the installed wheel; `make wheel` runs it from an environment that holds only that."""

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

# The borrowed site-packages hold the extras too. Importing the package must not need them.
for name in ("grain", "jax", "matplotlib", "peft", "torch", "transformers"):
    sys.modules[name] = None  # type: ignore[assignment]

for line in metadata.requires("keras-mpt") or []:
    requirement = Requirement(line)
    if requirement.marker is None:  # the extras carry a marker
        version = metadata.version(requirement.name)
        assert requirement.specifier.contains(version), f"{line} wanted, {version} is there"

import keras_mpt  # noqa: E402

installed = Path(keras_mpt.__file__).parent
source = Path(__file__).parents[1] / "keras_mpt"
assert installed.is_relative_to(sys.prefix), f"imported from {installed}, not from the wheel"
assert keras_mpt.__version__ == metadata.version("keras-mpt")
expected = [*source.rglob("*.py"), source / "py.typed"]
missing = [
    name
    for name in sorted(str(path.relative_to(source)) for path in expected)
    if not (installed / name).is_file()
]
assert not missing, f"not in the wheel: {missing}"
print(f"keras_mpt.__version__ = {keras_mpt.__version__}, imported from the wheel")
