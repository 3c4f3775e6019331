"""Many calls of one model from several threads, beside the same calls one after another."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.decoding.language_models import generated, inputs, make

# What is asked for, of rows of which tasks.
WAYS = ("generate", "score", "predict")
TASKS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 0), (2, 2))
CANDIDATES = [[3], [4, 5]]


def language_model():
    """A small GPT-2 that keeps less than it is asked for, so that prompts come and go."""
    model = make("gpt2")
    ask(model, "generate", (0, 1))
    model.kept_prompts.max_bytes = model.kept_prompts.nbytes
    return model


def ask(model, way, tasks):
    """One call, as an array."""
    x, task_ids = inputs("gpt2"), list(tasks)
    if way == "generate":
        return generated(model.generate(x, task_ids=task_ids, stop_token_ids=None))
    if way == "score":
        return model.score(x, CANDIDATES, task_ids=task_ids)
    return model.predict({**x, "task_ids": task_ids}, verbose=0)


def mixed_calls(model, threads, calls, of=TASKS):
    """Calls of all ways from all threads at once.

    Args:
        model: what `language_model` gives.
        threads: int. How many threads.
        calls: int. How many calls of each.
        of: tuple of tuples of two ints. Which tasks the rows may have.

    Returns:
        `(failed, differing)`: how many calls raised an error, and how many gave something else than
        the same call when it was made alone.
    """
    alone = {(way, tasks): ask(model, way, tasks) for way in WAYS for tasks in of}

    def call(thread):
        failed = differing = 0
        rng = np.random.default_rng(thread)
        for _ in range(calls):
            way, tasks = WAYS[rng.integers(len(WAYS))], of[rng.integers(len(of))]
            try:
                found = ask(model, way, tasks)
            except Exception:
                failed += 1
            else:
                differing += not np.allclose(found, alone[way, tasks], rtol=1e-5, atol=1e-5)
        return failed, differing

    with ThreadPoolExecutor(threads) as pool:
        counts = np.array(list(pool.map(call, range(threads))))
    return tuple(int(n) for n in counts.sum(axis=0))
