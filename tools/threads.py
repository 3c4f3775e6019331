"""The same number of threads for every framework, in this process and in those that it starts."""

from __future__ import annotations

import os

NAME = "BENCH_THREADS"


def pin_threads() -> int:
    """Pins OpenMP, TensorFlow and, by the processors that may be used, XLA.

    The number is the environment's `BENCH_THREADS`, or that of all processors. PyTorch takes
    OpenMP's. It must be called before a framework is imported.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    count = int(os.environ.get(NAME, 0)) or len(usable or range(os.cpu_count() or 1))
    if usable is not None and count < len(usable):
        os.sched_setaffinity(0, usable[:count])  # XLA counts these; it has no setting.
    os.environ[NAME] = str(count)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, str(count))
    return count
