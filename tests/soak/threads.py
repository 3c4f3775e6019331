"""Threads that ask one model, interrupts amid steps, and models that come and go on one backbone.

Each backend runs in a process of its own: `python -m tests.soak.threads` measures the one that
`KERAS_BACKEND` names.
"""

import concurrent.futures
import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import tracemalloc

BACKENDS = ("torch", "jax", "tensorflow")


def main() -> dict[str, object]:
    """Measures the three backends, two at a time, and returns what was seen of each."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(BACKENDS, pool.map(_measured, BACKENDS), strict=True))


def _measured(backend: str) -> object:
    command = [sys.executable, "-m", "tests.soak.threads"]
    environment = {**os.environ, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def measure(calls: int = 500, interrupts: int = 100, models: int = 50) -> dict[str, object]:
    """What is seen on this backend."""
    from tests.soak.calls import language_model, mixed_calls

    failed, differing = mixed_calls(language_model(), 4, calls)
    assert not failed and not differing, (failed, differing)
    torn = interrupt(interrupts)
    assert not torn, torn
    nodes, kilobytes = come_and_go(models)
    assert not nodes, nodes
    return {
        f"of 4 x {calls} mixed calls failed, and differed": (failed, differing),
        f"of {interrupts} interrupts left a model torn": torn,
        f"nodes left by {models} rounds, and kB a round": (nodes, kilobytes),
    }


def interrupt(times: int) -> int:
    """Interrupts `fit` by Ctrl-C's signal, and counts the models that are left torn."""
    import signal

    import numpy as np
    from keras import ops

    from tests import tiny
    from tests.fitting.breaking import Counting, counted
    from tests.models.classifiers import make

    model, rng, torn = make("heads"), np.random.default_rng(0), 0
    for variable in model.trainable_variables:
        variable.assign(ops.zeros(variable.shape))
    model.compile(Counting())
    x = {**tiny.inputs(model.backbone), "task_ids": np.array([0, 1, 0, 1])}
    y = np.array([0, 1, 1, 2])
    model.fit(x, y, batch_size=2, verbose=0)
    # A process in the background may be started with the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    for _ in range(times):
        press = threading.Timer(rng.uniform(0.02, 0.3), os.kill, (os.getpid(), signal.SIGINT))
        press.start()
        with contextlib.suppress(KeyboardInterrupt):
            # It ends by itself where Python drops the interrupt, as it does within a `__del__`.
            model.fit(x, y, batch_size=2, epochs=100, verbose=0)
            press.join()
        torn += len(counted(model)) != 1
    signal.signal(signal.SIGINT, before)
    model.predict(x, verbose=0)
    return torn


def come_and_go(rounds: int) -> tuple[int, float]:
    """The nodes that models leave on a backbone, and what more Python holds after a round."""
    import keras_mpt
    from tests import tiny
    from tests.models.classifiers import config
    from tests.models.test_frozen_backbone import calls_on

    backbone = tiny.backbone("gpt2")
    of_tasks = config(task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as folder:
        keras_mpt.prompt_tune(backbone, of_tasks).save_adapter(folder + "/adapter")

        def go(times: int) -> int:
            for _ in range(times):
                keras_mpt.prompt_tune(backbone, of_tasks)
                keras_mpt.load_adapter(backbone, folder + "/adapter").fold("a")
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        start, nodes = go(5), calls_on(backbone)
        grown = go(rounds) - start
        tracemalloc.stop()
    return calls_on(backbone) - nodes, round(grown / rounds / 1000, 2)


if __name__ == "__main__":
    print(json.dumps(measure()))
