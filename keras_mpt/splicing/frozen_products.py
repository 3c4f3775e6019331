"""Products of frozen weights on PyTorch, by the library that computes them fastest.

On a processor PyTorch multiplies float32 matrices by MKL, which on AMD's processors leaves half of
their arithmetic unused: 210 GFLOP/s on two cores with AVX-512, where oneDNN, which PyTorch brings
too, has 470. Nearly all of a prompt's training is products of activations and frozen weights, which
need a gradient on one side alone. So while a model runs, those go to oneDNN (`onednn.py`): the same
sums in another order.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras

# As processors of AMD's make name themselves.
_MAKERS = ("AuthenticAMD", "HygonGenuine")

_within = threading.local()


def frozen_products(is_recomputed: bool = False) -> AbstractContextManager[Any]:
    """Around what runs frozen layers: their products are oneDNN's where that is the faster one.

    Args:
        is_recomputed: bool. Whether what runs within is what `keras.remat` runs, and so runs within
            this each time. Defaults to `False`.
    """
    if not are_of_use():
        return contextlib.nullcontext()
    from keras_mpt.splicing import onednn

    outer = getattr(_within, "mode", None)
    if outer is None:
        # Whoever looks at what runs, or changes it, sees PyTorch's own.
        is_left = onednn.is_watched()
        return contextlib.nullcontext() if is_left else _entered(onednn.OneDNN(is_recomputed))
    return outer.recomputed() if is_recomputed else contextlib.nullcontext()


@contextlib.contextmanager
def _entered(mode: Any) -> Iterator[None]:
    _within.mode = mode
    try:
        with mode:
            yield
    finally:
        _within.mode = None


def with_frozen_products(
    function: Callable[..., Any], is_recomputed: bool = False
) -> Callable[..., Any]:
    """A function within `frozen_products`; the function itself where these are of no use.

    Args:
        function: function of anything.
        is_recomputed: as in `frozen_products`. Defaults to `False`.
    """
    if not are_of_use():
        return function

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with frozen_products(is_recomputed):
            return function(*args, **kwargs)

    return run


@functools.cache
def are_of_use() -> bool:
    """Whether PyTorch would multiply by MKL on a processor that MKL was not made for."""
    if keras.backend.backend() != "torch" or not any(m in _processor() for m in _MAKERS):
        return False
    import torch

    from keras_mpt.splicing import onednn

    return torch.backends.mkl.is_available() and onednn.is_available()


def _processor() -> str:
    """What the system says of the processor, its maker's mark among it."""
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else platform.processor()
