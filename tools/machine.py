"""What something was measured on: the processor, and the packages' versions."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path


def processor() -> str:
    """The processor's name, where the system tells."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself, or there is an NVIDIA GPU."""
    file = Path("/proc/cpuinfo")
    flags = set(file.read_text().split()) if file.exists() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16"}) or Path("/proc/driver/nvidia").exists()


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
