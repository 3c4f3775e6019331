"""What `evaluate` measured, and of which weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras

from keras_mpt.arrays import to_numpy
from keras_mpt.files.sealed import digest


@dataclasses.dataclass(frozen=True)
class Measured:
    """The outcome of one `evaluate`.

    Attributes:
        logs: mapping of a metric's name to its number over all rows.
        of_tasks: mapping of a task's id to such a mapping over its rows.
        rows: int. Over how many rows, or `None` where that is not known, as of a stream.
        weights: string. The `checksum` of the weights that they are of.
    """

    logs: Mapping[str, float]
    of_tasks: Mapping[int, Mapping[str, float]]
    rows: int | None
    weights: str


def checksum(variables: Sequence[keras.Variable], backbone: Sequence[keras.Variable]) -> str:
    """By which other weights are noticed, and a backbone that was quantized or cast since.

    Args:
        variables: what was trained: every number counts.
        backbone: the backbone's: their dtypes count.
    """
    found = digest({f"{i:06}": to_numpy(variable) for i, variable in enumerate(variables)})
    return f"{found} {[str(variable.dtype) for variable in backbone]}"
