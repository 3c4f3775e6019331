"""The page's part on the sources: what was learned of them together, and by how much better."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from studies.transfer import data
from studies.transfer.cells import difference, percent
from studies.transfer.log import Entry
from studies.transfer.part import Part
from studies.transfer.scores import BY_MATTHEWS
from studies.transfer.summary import interval
from tools.markdown import table

_SCORES = """\

### The sources together

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


def sources(part: Part, entries: Sequence[Entry]) -> str:
    """What the sources' own tests say, and the seconds of their training."""
    found = _trainings(part, entries)
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
        lines.append([part.methods[name].label, *cells, mean, str(len(own)), steps, rate, took])
    columns = ["method", *named, "mean", "seeds", "steps", "rate", "training"]
    return _SCORES + table(columns, lines) + _differences(part, found, tasks, named)


def _trainings(part: Part, entries: Sequence[Entry]) -> Trainings:
    """Each method's, of the settings that the last one had."""
    last = {e["method"]: e["settings"] for e in entries if e["stage"] == "sources"}
    found: Trainings = {name: {} for name in part.methods if name in last}
    for entry in entries:
        if entry["stage"] == "sources" and entry["settings"] == last[entry["method"]]:
            found[entry["method"]][entry["seed"]] = entry
    return found


def _differences(part: Part, found: Trainings, tasks: Sequence[str], named: Sequence[str]) -> str:
    """Each pair's differences, task by task and of the seeds' means."""
    lines = []
    for method, other in part.compared_sources:
        own, others = found.get(method, {}), found.get(other, {})
        pairs = [(own[seed], others[seed]) for seed in sorted(own.keys() & others.keys())]
        both = [(a["scores"], b["scores"]) for a, b in pairs]
        by_task = {t: [a[t] - b[t] for a, b in both if t in a and t in b] for t in tasks}
        # A training's tasks are no draws of their own, so the seeds' means are what counts.
        by_task["mean"] = [a["score"] - b["score"] for a, b in pairs]
        if len(pairs) > 1:
            cells = [difference(interval({t: values})) for t, values in by_task.items()]
            lines.append([f"{part.methods[method].label} − {part.methods[other].label}", *cells])
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


def source_difference(
    part: Part, entries: Sequence[Entry], method: str, other: str, by: float
) -> tuple[str, bool] | None:
    """How far a method's sources are ahead of another's, on average over the tasks that both have.

    Args:
        part: the part.
        entries: its lines.
        method: string.
        other: string, or "teachers" for a prompt of its own for each task.
        by: float. By how many points it should be ahead.
    """
    found = _trainings(part, entries)
    own = found.get(method)
    theirs = _teacher_scores(entries) if other == "teachers" else None
    if theirs is None and other in found:
        theirs = found[other][min(found[other])]["scores"]
    if not own or not theirs:
        return None
    scores = own[min(own)]["scores"]
    alike = [task for task in scores if task in theirs and task in part.largest]
    if not alike:
        return None
    points = 100 * statistics.mean(scores[task] - theirs[task] for task in alike)
    return f"{points:+.1f} ({len(alike)} tasks)", points >= by


def _teacher_scores(entries: Sequence[Entry]) -> dict[str, float] | None:
    own = [
        e["teacher_scores"] for e in entries if e["stage"] == "sources" and "teacher_scores" in e
    ]
    return own[-1] if own else None


def worst_source(part: Part, entries: Sequence[Entry], method: str) -> tuple[str, bool] | None:
    """The sources that are no better than their largest class."""
    own = _trainings(part, entries).get(method)
    if not own:
        return None
    scores = own[min(own)]["scores"]
    # Matthews correlation has its chance at 0.
    chance = {t: 0.0 if t in BY_MATTHEWS else part.largest[t] for t in scores if t in part.largest}
    below = [
        f"{t} {100 * scores[t]:.1f} against {100 * least:.1f}"
        for t, least in chance.items()
        if scores[t] <= least
    ]
    return "; ".join(below) or f"all of {len(chance)}", not below
