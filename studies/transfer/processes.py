"""One process for each processor, all at the same list of runs."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence

from tools.threads import NAME


def run_processes(count: int, arguments: Sequence[str]) -> int:
    """Runs the command in so many processes with one thread each; what they share is the log.

    Returns:
        0, or the exit status of one that failed.
    """
    given = [*arguments, "--processes", "1"]
    if "--stages" not in given:
        given += ["--stages", *(["sources", "targets"] if "--quick" in given else _STAGES)]
    usable = sorted(os.sched_getaffinity(0))
    # A thread each, so that what is read by the packages at import is so too.
    environment = {**os.environ, NAME: "1", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "studies.transfer", *given],
            env=environment,
            preexec_fn=functools.partial(os.sched_setaffinity, 0, {usable[i % len(usable)]}),
        )
        for i in range(count)
    ]
    return max(process.wait() for process in started)


_STAGES = ("tune", "sources", "targets")
