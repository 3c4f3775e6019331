"""The metrics of a running epoch in a state, where each process has those of its own rows.

That is so on PyTorch; on the other backends every process has those of all rows.
"""

from __future__ import annotations

import keras
import numpy as np

from keras_mpt.processes import is_writer, process_count

Values = dict[str, np.ndarray]


def added_up_metrics(values: Values) -> Values:
    """A state's values with the metrics of all processes. All of them must ask.

    Args:
        values: arrays by kind and number.
    """
    if keras.backend.backend() != "torch" or process_count() == 1:
        return values
    import torch

    added = {}
    for name, value in _metrics(values).items():
        tensor = torch.from_numpy(value.astype("float64"))
        torch.distributed.all_reduce(tensor)
        added[name] = tensor.numpy().astype(value.dtype)
    return values | added


def metrics_of_one(values: Values) -> Values:
    """What of a state's metrics this process goes on with: the first one with all, others with 0.

    Args:
        values: arrays by kind and number.
    """
    if keras.backend.backend() != "torch" or is_writer():
        return _metrics(values)
    return {name: np.zeros_like(value) for name, value in _metrics(values).items()}


def _metrics(values: Values) -> Values:
    return {name: value for name, value in values.items() if name.startswith("metrics/")}
