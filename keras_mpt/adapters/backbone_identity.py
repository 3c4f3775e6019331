"""Which frozen backbone an adapter was trained on: enough to notice another one.

An adapter on another backbone of the same width loads without an error, and means nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

# Numbers of weights kept: spread over the backbone, few enough to cost nothing.
_NUM_VALUES = 8


def backbone_identity(backbone: Any) -> dict[str, Any]:
    """The backbone's class and size, and some of its weights' numbers, as JSON values.

    Args:
        backbone: a backbone.

    Returns:
        A dict of "class_name", "num_parameters" and "values".
    """
    matrices = [w for w in backbone.weights if len(w.shape) >= 2]
    chosen = np.linspace(0, len(matrices) - 1, _NUM_VALUES if matrices else 0).astype(int)
    return {
        "class_name": type(backbone).__name__,
        "num_parameters": sum(int(np.prod(w.shape)) for w in backbone.weights),
        "values": [_middle(matrices[i]) for i in chosen],
    }


def misfit(saved: dict[str, Any], backbone: Any) -> str | None:
    """How a backbone differs from the one of a saved identity, in words, or `None`.

    Numbers are compared as coarsely as bfloat16 holds them. A quantized backbone is not compared by
    its numbers, which are others.

    Args:
        saved: what `backbone_identity` gave.
        backbone: a backbone.
    """
    found = backbone_identity(backbone)
    if saved.get("class_name") != found["class_name"]:
        return f"a {saved.get('class_name')}, not a {found['class_name']}"
    if any("int" in str(w.dtype) for w in backbone.weights if len(w.shape) >= 2):
        return None
    if saved.get("num_parameters") != found["num_parameters"]:
        return (
            f"a {found['class_name']} of {saved.get('num_parameters')} parameters, not "
            f"{found['num_parameters']}"
        )
    values = saved.get("values", [])
    if len(values) == len(found["values"]) and np.allclose(
        values, found["values"], rtol=1e-2, atol=1e-4
    ):
        return None
    return f"a {found['class_name']} with other weights"


def _middle(variable: Any) -> float:
    value = variable.value[tuple(n // 2 for n in variable.shape)]
    return float(ops.convert_to_numpy(ops.cast(value, "float32")))
