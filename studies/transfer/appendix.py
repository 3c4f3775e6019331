"""The end of the page: what was paid, and what was chosen."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Sequence
from typing import Any

from studies.transfer.cells import rows_label
from studies.transfer.job import Method
from studies.transfer.log import Entry, steps_of
from studies.transfer.part import Part
from studies.transfer.summary import Runs, rows_tuned_for, shots_of, tuning_scores
from tools.markdown import table

_COSTS = """\

### Costs on a target

Numbers that are trained for one task (its head's among them), their bytes in float32, and the
median seconds of a training{on}, without those of looking at it on its way. A head's alone are
without its features, where another run has computed them.

"""

_CHOSEN = """\

### Settings

The rate of each method's runs above, and what the grid scored in percent: the mean of validation
scores on the pseudo-targets, and of how many runs; of source training, the mean over the sources,
after fewer steps. *Edge*: a rate beyond the grid might have done better still.

"""


_SIZES = {
    "targets": {"virtual_tokens": "virtual tokens", "batch": "rows of a batch"},
    "sources": {
        "rows": "rows of a source at most",
        "steps": "steps on the sources",
        "teacher_epochs": "epochs of each teacher",
        "batch": "rows of a batch of the sources",
    },
    "tune sources": {
        "steps": "steps on the sources while their rate is chosen",
        "tasks": "sources that it is chosen on",
    },
}


def sizes(entries: Sequence[Entry]) -> str:
    """How much of what the runs had: tokens, rows, steps."""
    found: dict[str, Any] = {}
    for entry in entries:
        if entry["stage"] == "tune":
            found.setdefault("pseudo-targets", set()).add(entry["task"])
        elif entry["stage"] in _SIZES:
            for name, label in _SIZES[entry["stage"]].items():
                if name in entry["settings"]:
                    value = entry["settings"][name]
                    told = ", ".join(value) if isinstance(value, list) else value
                    found.setdefault(label, set()).add(told)
    lines = [f"- {label}: {_listed(values)}\n" for label, values in found.items()]
    return "\nSizes:\n\n" + "".join(lines) if lines else ""


def _listed(values: set[Any]) -> str:
    return ", ".join("all" if value is None else str(value) for value in sorted(values, key=str))


def costs(part: Part, runs: Runs) -> str:
    """Numbers and seconds of a training on a target."""
    shots = shots_of(runs)
    # They differ from task to task by the head.
    everything = {t: e["parameters"] for (m, _, t), own in runs.items() for e in own.values()
                  if m == "full"}  # fmt: skip
    # Seconds of other threads, or of a GPU, do not compare: those of most runs are shown. Of
    # a machine that did other work as well none are.
    quiet = [e for own in runs.values() for e in own.values() if not e.get("busy")]
    counted = collections.Counter(map(_ran_on, quiet))
    ((threads, accelerator), _), *_ = counted.most_common(1) or [((None, None), 0)]
    lines = []
    for name, method in part.methods.items():
        own = [e for (m, _, _), found in runs.items() if m == name for e in found.values()]
        if not own:
            continue
        counts = [entry["parameters"] for entry in own]
        shares = [e["parameters"] / everything[e["task"]] for e in own if e["task"] in everything]
        share = f"{100 * max(shares):.3g}%" if shares else ""
        timed = [e for e in own if not e.get("busy") and _ran_on(e) == (threads, accelerator)]
        seconds = [[e["seconds"] for e in timed if e["shots"] == at] for at in shots]
        cells = [f"{statistics.median(values):.1f} s" if values else "" for values in seconds]
        low, high = f"{min(counts):,}", f"{max(counts):,}"
        numbers = low if low == high else f"{low} to {high}"
        lines.append([method.label, numbers, share, f"{4 * max(counts):,}", *cells])
    columns = [
        "method",
        "numbers trained",
        "of full fine-tuning's, at most",
        "bytes, at most",
        *map(rows_label, shots),
    ]
    on = "" if threads is None else f" with threads: {threads}"
    on += f" on {accelerator}" if accelerator else ""
    return _COSTS.format(on=on) + table(columns, lines)


def _ran_on(entry: Entry) -> tuple[int | None, str | None]:
    """A run's threads and accelerator, where it noted them."""
    return entry.get("threads"), entry.get("accelerator")


def settings(part: Part, entries: Sequence[Entry], runs: Runs) -> str:
    """Each method's rates, beside what the grid scored."""
    lines = []
    for name, method in part.methods.items():
        own = [e for e in entries if e["stage"] == "sources" and e["method"] == name]
        lines += _line(method, "sources", own[-1:], tuning_scores(entries, name))
        for at in shots_of(runs):
            own = [e for (m, k, _), found in runs.items() if (m, k) == (name, at)
                   for e in found.values()]  # fmt: skip
            lines += _line(method, rows_label(at), own, *_tried(entries, method, at))
    columns = ["method", "rows", "what", "used", "steps", "grid"]
    return _CHOSEN + table(columns, lines) if lines else ""


def _tried(
    entries: Sequence[Entry], method: Method, at: int | str
) -> tuple[dict[float, list[float]], str]:
    """What the grid scored that chose the rate, and what to say of it."""
    name = method.tuned_method.name
    for tuned in rows_tuned_for(entries, name, at):
        said = f"as {method.tuned_as.label}: " if method.tuned_as else ""
        said += "" if tuned == at else f"as {rows_label(tuned)}: "
        return tuning_scores(entries, name, tuned), said
    return {}, ""


def _line(
    method: Method,
    rows: str,
    own: Sequence[Entry],
    tried: dict[float, list[float]],
    said: str = "",
) -> list[list[str]]:
    """A line of `settings`, or none where there are no such runs."""
    if not own:
        return []
    rates, steps = {e["settings"]["rate"] for e in own}, {steps_of(e) for e in own}
    used, taken = (", ".join(f"{value:g}" for value in sorted(of)) for of in (rates, steps))
    shown = "; ".join(
        f"{rate:g}: {100 * statistics.mean(values):.1f} of {len(values)}"
        for rate, values in tried.items()
    )
    at_edge = len(tried) > 1 and used in (f"{min(tried):g}", f"{max(tried):g}")
    used += " (edge)" if at_edge else ""
    return [[method.label, rows, method.tuned, used, taken, said + shown or "not tuned"]]
