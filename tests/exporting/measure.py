"""What an export of a model computes beside the model, and which sizes stay open."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mpt.exporting.formats import FORMATS
from tests.exporting.runtimes import run_all

# Sizes that no export has seen.
SIZES = [(5, 7), (2, 4)]
TOLERANCE = 1e-5
NO_TASK = 9

OPEN, ROWS, NONE = "rows and tokens", "rows", "none"


def formats_here() -> list[str]:
    """The formats that this backend writes."""
    return [name for name, f in FORMATS.items() if keras.backend.backend() in f.packages]


def measure(model: Any, format: str, folder: Path, batches: Any) -> dict[str, Any]:
    """Exports a model, opens it by its runtime and compares.

    Args:
        model: a prompt-tuned model.
        format: the format.
        folder: an empty folder.
        batches: function of the model, rows and length that gives inputs.

    Returns:
        A dict of "open", the sizes that stay open, and "error", the largest difference to
        `predict`, as a share of the largest output where that is above 1.
    """
    path = folder / ("model" + FORMATS[format].suffix)
    rows, length = SIZES[0]
    is_open = _export(model, path, format, batches(model, rows, length))
    sizes = {OPEN: SIZES, ROWS: [SIZES[0], (2, length)], NONE: [SIZES[0]]}[is_open]
    given = [batches(model, *size) for size in sizes]
    wrong = []
    if model.model_inputs.has_tasks:
        wrong = [
            {**x, "task_ids": np.where(np.arange(len(x["task_ids"])) == 1, NO_TASK, x["task_ids"])}
            for x in given
        ]
    found = run_all(format, path, [*given, *wrong])
    wanted = [_by_name(model, model.predict(x, verbose=0)) for x in given]
    error = max(_error(a, b) for a, b in zip(found[: len(given)], wanted, strict=True))
    for outputs, right in zip(found[len(given) :], wanted[: len(wrong)], strict=True):
        _check_wrong_row(outputs, right)
    return {"open": is_open, "error": float(f"{error:.1e}")}


def _export(model: Any, path: Path, format: str, x: dict[str, np.ndarray]) -> str:
    """Exports with as much open as can be."""
    rows, length = x[model.model_inputs.names[0]].shape
    if keras.backend.backend() in FORMATS[format].is_fixed:
        shapes = {name: value.shape for name, value in x.items()}
        model.export(path, format, verbose=False, input_signature=shapes)
        return NONE
    try:
        model.export(path, format, verbose=False)
        return OPEN
    except ValueError as error:
        assert str(error).startswith("`sequence_length` should be given"), error
        model.export(path, format, verbose=False, sequence_length=length)
        return ROWS


def _by_name(model: Any, outputs: Any) -> dict[str, np.ndarray]:
    return dict(outputs) if isinstance(outputs, dict) else {"logits": outputs}


def _error(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    assert set(found) == set(wanted)
    errors = []
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        usual = np.abs(value[value > -1e8])  # Without the classes that a task does not have.
        errors.append(np.abs(found[name] - value).max() / max(1.0, usual.max()))
    return float(max(errors))


def _check_wrong_row(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """The row of no task has not one number of another's, and the others are as they were."""
    for name, value in wanted.items():
        others = np.arange(len(value)) != 1
        np.testing.assert_allclose(found[name][others], value[others], rtol=1e-4, atol=1e-4)
        is_answer = value[1] > -1e8
        assert np.isnan(found[name][1][is_answer]).all(), name
