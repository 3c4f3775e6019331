"""The page's part on the sources: what was learned of them together, and by how much better."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from studies.transfer import data
from studies.transfer.cells import difference, percent
from studies.transfer.log import Entry
from studies.transfer.methods import METHODS
from studies.transfer.scores import BY_MATTHEWS
from studies.transfer.summary import interval
from tools.markdown import table

# The first less the second.
COMPARED = (("mpt_plain", "peft_mpt"), ("mpt", "peft_mpt"), ("mpt", "mpt_plain"))

_SCORES = """\

## The sources together

Test scores after training on all sources, in percent, mean and standard deviation over seeds of the
training, and the median seconds of it. Targets start from the first seed's. The teachers are the
same for all seeds.

"""

_DIFFERENCES = """
In points: what the first method scores more than the second on the same test rows, and the 95%
interval of that by Student's t over the seeds of the training.

"""

# A method's trainings by seed.
Trainings = dict[str, dict[int, Entry]]


def sources(entries: Sequence[Entry]) -> str:
    """What the sources' own tests say, and the seconds of their training."""
    found = _trainings(entries)
    if not found:
        return ""
    present = {task for own in found.values() for e in own.values() for task in e["scores"]}
    tasks = [task for task in data.SOURCES if task in present]
    named = [f"{task} (Matthews)" if task in BY_MATTHEWS else task for task in tasks]
    lines = []
    for name, own in found.items():
        entry, runs = own[min(own)], list(own.values())
        cells = [percent([e["scores"][t] for e in runs if t in e["scores"]]) for t in tasks]
        took = f"{statistics.median(e['seconds'] for e in runs):.0f} s"
        teachers = _teacher_seconds(entries, entry)
        if teachers:
            took += f" and {teachers:.0f} s for the teachers"
        mean = percent([e["score"] for e in runs])
        rate, steps = f"{entry['settings']['rate']:g}", f"{entry['settings']['steps']:,}"
        lines.append([METHODS[name].label, *cells, mean, str(len(own)), steps, rate, took])
    columns = ["method", *named, "mean", "seeds", "steps", "rate", "training"]
    return _SCORES + table(columns, lines) + _differences(found, tasks, named)


def _trainings(entries: Sequence[Entry]) -> Trainings:
    """Each method's, of the settings that the last one had."""
    last = {e["method"]: e["settings"] for e in entries if e["stage"] == "sources"}
    found: Trainings = {name: {} for name in METHODS if name in last}
    for entry in entries:
        if entry["stage"] == "sources" and entry["settings"] == last[entry["method"]]:
            found[entry["method"]][entry["seed"]] = entry
    return found


def _differences(found: Trainings, tasks: Sequence[str], named: Sequence[str]) -> str:
    """Each pair's differences, task by task and of the seeds' means."""
    lines = []
    for method, other in COMPARED:
        own, others = found.get(method, {}), found.get(other, {})
        pairs = [(own[seed], others[seed]) for seed in sorted(own.keys() & others.keys())]
        by_task = {t: [a["scores"][t] - b["scores"][t] for a, b in pairs] for t in tasks}
        # A training's tasks are no draws of their own, so the seeds' means are what counts.
        by_task["mean"] = [a["score"] - b["score"] for a, b in pairs]
        if len(pairs) > 1:
            cells = [difference(interval({t: values})) for t, values in by_task.items()]
            lines.append([f"{METHODS[method].label} − {METHODS[other].label}", *cells])
    return _DIFFERENCES + table(["difference", *named, "mean"], lines) if lines else ""


def _teacher_seconds(entries: Sequence[Entry], run: Entry) -> float:
    """Of all runs that have the same teachers: whichever came first trained each of them."""
    alike = [
        e.get("teacher_seconds", 0.0)
        for e in entries
        if all(
            e["settings"].get(name) == run["settings"].get(name)
            for name in ("teacher_epochs", "rows", "virtual_tokens")
        )
    ]
    return sum(alike) if "teacher_seconds" in run else 0.0
