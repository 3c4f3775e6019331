"""From the log to docs/studies/transfer/README.md."""

from __future__ import annotations

from collections.abc import Sequence

from studies.transfer.appendix import costs, settings, sizes
from studies.transfer.cells import rows_label
from studies.transfer.curves import curves
from studies.transfer.goals import goals
from studies.transfer.log import Entry
from studies.transfer.part import Part, of_part
from studies.transfer.parts import PARTS
from studies.transfer.source_scores import sources
from studies.transfer.summary import (
    Runs,
    check_one_budget,
    shots_of,
    target_runs,
    targets_of,
)
from studies.transfer.tables import (
    compared,
    differences_table,
    overview,
    score_table,
    text_table,
    verdicts,
)
from studies.transfer.validity import told
from tools.machine import in_words

_HEAD = """\
# Transfer

Made by `make transfer` from `studies/transfer/`; do not edit. The runs are in `runs.jsonl`, and
`python -m studies.transfer --render` makes this page and its charts of them anew.
"""

_QUICK = """
**A quick run. Its numbers mean nothing.**
"""

_TUNED = """
Learning rates (of a head alone: its decay) are chosen on source tasks that stand for targets, on
rows of their training files that nothing is trained on: the best mean of a grid, which grows where
the best rate is at its edge. What is transferred to these comes from sources without them, and
those sources' own validation rows choose the learning rate of source training. Nothing is chosen on
a target. Rows per class that were not tuned have the rate of the most below them that were, or
else of the fewest above.
"""

_UNTUNED = """
Nothing was tuned: every method has the second rate of its grid.
"""

_LIMITS = """
One training of the sources serves all seeds of the targets, so deviations and intervals there are
those of rows and starts, not of source training. `cola` is scored by Matthews correlation, free
text by exact match, all else by accuracy.
"""

_SCORES = """\

### Scores on the targets

In percent. First the means over the targets that count, of methods that have all of them and all
seeds; then each target's mean and standard deviation over seeds. Targets in brackets do not count.

"""


def chart_name(part: Part, what: str) -> str:
    """The file of one of a part's charts: "shots" or "steps"."""
    return f"{part.name}-{what}.svg"


def page(entries: Sequence[Entry]) -> str:
    """The page's text.

    Args:
        entries: the log's lines.

    Returns:
        Markdown; it says nothing that the lines do not hold.

    Raises:
        ValueError: runs of several budgets, which do not compare.
    """
    parts = [_HEAD]
    if any(e["settings"]["quick"] for e in entries if e["stage"] == "machine"):
        parts.append(_QUICK)
    found = {part.name: current(part, entries) for part in PARTS.values()}
    words = PARTS["words"]
    if found["words"]:
        parts.append(goals(words, found["words"], target_runs(found["words"])))
    for part in PARTS.values():
        if found[part.name]:
            parts.append(_part(part, found[part.name]))
    if not any(found.values()):
        parts.append("\nNo run is in the log yet.\n")
    return "".join(parts)


def current(part: Part, entries: Sequence[Entry]) -> list[Entry]:
    """The part's lines; where rows were cut at several lengths, those of the longest."""
    own = of_part(entries, part.name)
    cuts = {e["settings"].get("tokens", 32) for e in own if e["stage"] == "targets"}
    return [e for e in own if not cuts or e["settings"].get("tokens", 32) == max(cuts)]


def _part(part: Part, entries: Sequence[Entry]) -> str:
    check_one_budget(entries)
    runs = target_runs(entries)
    machines = [entry["settings"] for entry in entries if entry["stage"] == "machine"]
    about = part.about.format(
        dtype=", ".join(dict.fromkeys(m["dtype"] for m in machines if "dtype" in m)) or "bfloat16",
        tokens=", ".join({str(e["settings"].get("tokens", 32)) for e in entries}),
    )
    parts = [f"\n## {part.title}\n", _machines(machines), "\n", about, "\n"]
    parts.append("".join(f"- *{m.label}*: {m.about}.\n" for m in part.methods.values()))
    parts += [_TUNED if any(e["stage"] == "tune" for e in entries) else _UNTUNED, _LIMITS]
    parts.append(sizes(entries))
    if runs:
        parts += [_held(part, runs), told(part, runs), _SCORES, overview(part, runs)]
        parts.append(f"\n![Scores against rows per class]({chart_name(part, 'shots')})\n")
        parts += [score_table(part, runs, at) for at in shots_of(runs)]
        parts.append(text_table(part, runs))
        shown = curves(part, runs)
        if shown:
            parts.append(f"{shown}\n![Scores against steps]({chart_name(part, 'steps')})\n")
        found = compared(part, runs)
        parts += [differences_table(part, found), verdicts(part, found), costs(part, runs)]
    else:
        parts.append("\nNo run on a target is in the log yet.\n")
    parts += [sources(part, entries), settings(part, entries, runs)]
    return "".join(parts)


def _machines(machines: Sequence[Entry]) -> str:
    lines = []
    for found in machines:
        threads, packages = found["threads"], in_words(found["packages"])
        where = f"{found['accelerator']}, with" if "accelerator" in found else "CPU only,"
        lines.append(f"\n{found['processor']}, {where} threads: {threads},\nwith {packages}.\n")
    return "".join(dict.fromkeys(lines))


def _held(part: Part, runs: Runs) -> str:
    """Which runs there are, and which are missing."""
    entries = [entry for own in runs.values() for entry in own.values()]
    rows = {e["task"]: e["scored_rows"] for e in entries}
    tested = ", ".join(f"{task} {rows[task]}" for task in targets_of(runs, part.targets))
    lines = [
        f"\nTest rows, a stratified sample where a task has more: {tested}. Runs in the log, of "
        f"the targets {', '.join(part.targets)}:\n\n"
    ]
    for at in dict.fromkeys(k for wave in part.waves for k in wave.shots):
        seeds = max(wave.seeds for wave in part.waves if at in wave.shots)
        wanted = len(part.targets) * seeds
        counts = {
            m: sum(len(runs.get((m, at, t), {})) for t in part.targets) for m in part.methods
        }  # fmt: skip
        less = [f"{part.methods[m].label} {n}" for m, n in counts.items() if 0 < n < wanted]
        none = [part.methods[m].label for m, n in counts.items() if not n]
        # Labels have commas of their own.
        told = f"; fewer: {'; '.join(less)}" if less else ""
        told += f"; none yet: {'; '.join(none)}" if none else ""
        lines.append(f"- {rows_label(at)}, {wanted} runs of each method wanted{told}.\n")
    return "".join(lines)
