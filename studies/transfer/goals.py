"""What the study is to show, each goal with its figure."""

from __future__ import annotations

from collections.abc import Sequence

from studies.transfer.cells import rows_label
from studies.transfer.curves import mean_curve, steps_to
from studies.transfer.log import Entry
from studies.transfer.part import Part
from studies.transfer.plan import FULL
from studies.transfer.source_scores import source_difference, worst_source
from studies.transfer.summary import Runs, interval, mean_difference, paired_differences
from studies.transfer.tables import counted_at, difference_cell
from tools.markdown import table

# A figure, and whether it meets the goal; `None` where its runs are missing.
Found = tuple[str, bool] | None

_HEAD = """\

## Goals

Of the part on words. MPT is *MPT without distillation*, from the average of the sources' factors,
from the nearest source or from that of the lowest loss; differences are in points, with their 95%
interval, over the targets that count.

"""
MPT = "mpt_plain"
# The same from sources with more steps; a line where they have runs.
_MORE, _MORE_TOLD = "_sources_3", ", 3 × the source steps"
_LOWEST, _LOWEST_TOLD = "_lowest", "from the source of the lowest loss"
STARTS = {
    MPT: "MPT",
    "mpt_nearest": "MPT from the nearest source",
    "mpt_lowest": f"MPT {_LOWEST_TOLD}",
}
_NO_GOAL = "(no goal)"


def goals(part: Part, entries: Sequence[Entry], runs: Runs) -> str:
    """A line for each goal."""
    kinds = [(name + more, label + told) for more, told in (("", ""), (_MORE, _MORE_TOLD))
             for name, label in STARTS.items()]  # fmt: skip
    frozen = [(f"mpt_frozen_{r}{more}", f"P frozen, R = {r}{told}")
              for more, told in (("", ""), (_LOWEST, f", {_LOWEST_TOLD}"), (_MORE, _MORE_TOLD))
              for r in (1, 4)]  # fmt: skip
    found: list[tuple[str, Found]] = [
        *((f"k = 16: {told} at least 5 points over prompt tuning, the interval above zero",
           ahead(part, runs, name, "prompt", 16, by=5.0, surely=True)) for name, told in kinds),
        *((f"k = {k}: {told} at least full fine-tuning's score",
           ahead(part, runs, name, "full", k)) for k in (4, 16) for name, told in kinds),
        ("under 0.1% of full fine-tuning's numbers", share(runs, MPT)),
        *((f"k = {k}: {told} over PEFT's MPT, the interval above zero",
           ahead(part, runs, name, "peft_mpt", k, surely=True))
          for k in (4, 16) for name, told in STARTS.items()),
        *((f"{rows_label(k)}: {told}, within 1 point of prompt tuning",
           ahead(part, runs, name, "prompt", k, by=-1.0))
          for k in (16, FULL) for name, told in frozen),
        *((f"k = 16: {told} has prompt tuning's best score in a third of its steps",
           faster(part, runs, name, 16)) for name, told in kinds),
        *((f"k = 16: {told} ahead of zero-shot at step 0", at_once(part, runs, name, 16))
          for name, told in kinds),
        (f"k = 16: MPT over prompt tuning that has three times its steps {_NO_GOAL}",
         ahead(part, runs, MPT, "prompt_3", 16)),
        ("sources together within 1 point of a teacher's prompt for each",
         source_difference(part, entries, MPT, "teachers", by=-1.0)),
        *((f"k = {k}: distillation's own effect on targets {_NO_GOAL}",
           ahead(part, runs, "mpt", MPT, k)) for k in (4, 16)),
        *((f"k = {k}: two speeds' own effect on targets {_NO_GOAL}",
           ahead(part, runs, MPT, "mpt_one_speed", k)) for k in (4, 16)),
        *((f"sources above the largest class, each of them{told}",
           worst_source(part, entries, MPT + more))
          for more, told in (("", ""), (_MORE, _MORE_TOLD))),
    ]  # fmt: skip
    lines = [
        [goal, *_told(own, goal.endswith(_NO_GOAL))]
        for goal, own in found
        if own is not None or not any(told in goal for told in (_MORE_TOLD, _LOWEST_TOLD))
    ]
    return _HEAD + table(["goal", "figure", ""], lines)


def _told(own: Found, is_no_goal: bool) -> list[str]:
    if own is None:
        return ["", "not run yet"]
    return [own[0], "" if is_no_goal else "met" if own[1] else "missed"]


def ahead(
    part: Part,
    runs: Runs,
    method: str,
    other: str,
    shots: int | str,
    by: float = 0.0,
    surely: bool = False,
) -> Found:
    """Whether the first method is so many points ahead of the second, or surely ahead."""
    counted = counted_at(part, runs, shots)
    differences = {
        task: values
        for task, values in paired_differences(runs, method, other, shots).items()
        if task in counted
    }
    if not differences:
        return None
    found = interval(differences)
    above = not surely or (found is not None and found[1] > 0)
    met = 100 * mean_difference(differences) >= by and above
    return difference_cell(differences, found), met


def share(runs: Runs, method: str) -> Found:
    """The method's numbers beside full fine-tuning's."""
    counts: dict[str, set[int]] = {}
    for (name, _, _), own in runs.items():
        counts.setdefault(name, set()).update(e["parameters"] for e in own.values())
    if method not in counts or "full" not in counts:
        return None
    found = max(counts[method]) / min(counts["full"])
    return f"{100 * found:.3g}%", found < 0.001


def faster(part: Part, runs: Runs, method: str, shots: int | str) -> Found:
    """After how many steps a method is where prompt tuning is at its best."""
    theirs, ours = (mean_curve(part, runs, name, shots) for name in ("prompt", method))
    if not theirs or not ours:
        return None
    best = max(theirs.values())
    needed, took = steps_to(theirs, best), steps_to(ours, best)
    assert needed is not None
    if took is None:
        return f"{100 * best:.1f} at step {needed:.0f}; MPT never", False
    told = f"{100 * best:.1f} at step {needed:.0f}; MPT at step {took:.0f}"
    return told, took <= needed / 3


def at_once(part: Part, runs: Runs, method: str, shots: int | str) -> Found:
    """What a method scores before any step."""
    ours, bare = (mean_curve(part, runs, name, shots) for name in (method, "zero_shot"))
    if not ours or not bare:
        return None
    return f"{100 * ours[0]:.1f} against {100 * bare[0]:.1f}", ours[0] > bare[0]
