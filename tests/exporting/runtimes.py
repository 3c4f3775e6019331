"""The runtimes that open what was exported."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]


def run_all(format: str, path: Path, batches: list[Batch]) -> list[Batch]:
    """What an artifact's runtime makes of some batches."""
    if format == "tf_saved_model":
        return without_keras(path, batches)
    run = _OPENED[format](path)
    return [run(batch) for batch in batches]


def without_keras(
    path: Path, batches: list[Batch], signature: str = "serving_default"
) -> list[Batch]:
    """The same of a SavedModel, in a process of its own."""
    assert path.name == "model"
    files = [path.parent / f"{signature}-{i}.npz" for i in range(len(batches))]
    for file, batch in zip(files, batches, strict=True):
        np.savez(file, **batch)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "tests.exporting.saved_models", *map(str, files)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    found = []
    for file in files:
        with np.load(file.with_suffix(".out.npz")) as outputs:
            found.append(dict(outputs))
    return found


def _onnx(path: Path) -> Callable[[Batch], Batch]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, session.run(None, x), strict=True))


def _litert(path: Path) -> Callable[[Batch], Batch]:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner("serving_default")
    return lambda x: run(**x)


def _openvino(path: Path) -> Callable[[Batch], Batch]:
    import openvino

    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(str(path), "CPU", hint)

    def run(x: Batch) -> Batch:
        found = compiled(x)
        return {next(iter(port.get_names())): found[port] for port in compiled.outputs}

    return run


def _torch(path: Path) -> Callable[[Batch], Batch]:
    import torch

    module = torch.export.load(path).module()

    def run(x: Batch) -> Batch:
        outputs: dict[str, Any] = module({k: torch.tensor(v) for k, v in x.items()})
        return {name: value.detach().numpy() for name, value in outputs.items()}

    return run


_OPENED = {"onnx": _onnx, "litert": _litert, "openvino": _openvino, "torch": _torch}
