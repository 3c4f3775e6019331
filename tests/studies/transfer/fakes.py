"""A log without a model."""

from studies.transfer.log import Entry

SETTINGS = {"rate": 0.01, "steps": 60, "virtual_tokens": 16, "batch": 32, "test_rows": 500}


def run(method, task, seed, score, shots=16, stage="targets", **settings) -> Entry:
    """A finished run's line."""
    return {
        "stage": stage,
        "method": method,
        "task": task,
        "shots": shots,
        "seed": seed,
        "settings": {**SETTINGS, **settings},
        "score": score,
        "parameters": 22_000_000 if method == "full" else 6_914,
        "seconds": 10.0 + seed,
        "rows": 32,
        "scored_rows": 500,
        "wall": 12.0,
    }


def machine(quick=False) -> Entry:
    """The line that says what ran the rest."""
    settings = {"processor": "A processor", "threads": 2, "packages": {"torch": "2.0"}}
    return {"stage": "machine", "settings": {**settings, "quick": quick}}


def target_runs(**scores) -> list[Entry]:
    """Runs of methods on cr and snips: of each a list of scores of seeds 0, 1, …"""
    return [
        run(method, task, seed, value)
        for method, tasks in scores.items()
        for task, values in zip(("cr", "snips"), tasks, strict=False)
        for seed, value in enumerate(values)
    ]
