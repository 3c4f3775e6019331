"""What something was measured on: the processor, and the packages' versions."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

# As makers name them, and as Linux does, on x86 and on ARM.
_EXTENSIONS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "AMX": {"amx_tile"},
    "SVE": {"sve"},
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
}


def processor() -> str:
    """The processor's name, where the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def extensions() -> list[str]:
    """Which of the processor's instructions matter to matrix products, where the system tells."""
    flags = _flags()
    return [name for name, any_of in _EXTENSIONS.items() if flags & any_of]


def kind_of_processor() -> str:
    """The processor's name and `extensions`: two that share both are one kind to a benchmark."""
    return ", ".join([processor(), *extensions()])


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, or there is an NVIDIA GPU."""
    return bool(_flags() & {"avx512_bf16", "amx_bf16"}) or Path("/proc/driver/nvidia").exists()


def _flags() -> set[str]:
    file = Path("/proc/cpuinfo")
    return set(file.read_text().split()) if file.exists() else set()


def gpu() -> str:
    """The name of PyTorch's GPU, or an empty string."""
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else ""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Each package's version, without what a build adds to it."""
    return {name: version(name).partition("+")[0] for name in packages}


def in_words(found: Mapping[str, str]) -> str:
    """Packages and their versions, as a page lists them."""
    return ", ".join(f"{name} {number}" for name, number in found.items())
