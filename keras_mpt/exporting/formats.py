"""The formats, and what each backend can make of them."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")

# Protocol buffers and flat buffers count bytes in 31 bits.
TWO_GB = 1 << 31


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: what `format` says.
        suffix: how the path ends; empty for a folder.
        runtime: what opens it.
        packages: for each backend that can make it, the packages that it takes beside the backend.
        reasons: for each other backend, why not.
        only_float32: whether the runtime computes in float32 alone.
        is_fixed: the backends on which all dimensions are to be given.
        most_bytes: for the backends that write all into one message, how much it holds.
    """

    name: str
    suffix: str
    runtime: str
    packages: Mapping[str, tuple[str, ...]]
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)
    only_float32: bool = True
    is_fixed: tuple[str, ...] = ()
    most_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def missing(self, backend: str) -> list[str]:
        """The packages that are not installed."""
        needed = self.packages[backend]
        return [name for name in needed if importlib.util.find_spec(name) is None]

    def files(self, path: Path) -> list[Path]:
        """The files and folders that are written for certain."""
        return [path, path.with_suffix(".bin")] if self.name == "openvino" else [path]


FORMATS = {
    made.name: made
    for made in (
        Format(
            "tf_saved_model",
            "",
            "TensorFlow",
            {"tensorflow": (), "jax": ("tensorflow",)},
            {"torch": "Keras goes through torch_xla, which has no release for this PyTorch"},
            only_float32=False,
        ),
        Format(
            "onnx",
            ".onnx",
            "ONNX Runtime",
            {"tensorflow": ("tf2onnx", "onnx"), "torch": ("onnx", "onnxscript")},
            {"jax": "jax2onnx cannot trace `jax.numpy.arange` as Keras calls it"},
            most_bytes={"tensorflow": TWO_GB},
        ),
        Format(
            "openvino",
            ".xml",
            "OpenVINO",
            {"tensorflow": ("openvino",), "torch": ("openvino", "onnx", "onnxscript")},
            {"jax": "OpenVINO has no rule for XlaCallModule, in which JAX's programs are kept"},
        ),
        Format(
            "litert",
            ".tflite",
            "LiteRT",
            {"tensorflow": (), "jax": ("tensorflow",)},
            {"torch": "litert-torch takes packages that are not among those of keras-mpt[export]"},
            is_fixed=("jax",),
            most_bytes={"tensorflow": TWO_GB, "jax": TWO_GB},
        ),
        Format(
            "torch",
            ".pt2",
            "PyTorch",
            {"torch": ()},
            {"tensorflow": "it is a program of PyTorch's", "jax": "it is a program of PyTorch's"},
            only_float32=False,
        ),
    )
}
