"""The page's section on rows of like length."""

from __future__ import annotations

from benchmarks.cells import Parts, in_rows, in_time, ratio
from tools.markdown import table

_LENGTHS = """\
## Rows of like length in one batch

{case}, two layers of it, an epoch of {steps} steps of `fit` on a `TaskMix` of three tasks, whose
rows are as long as those of SST-2, MNLI and TREC. *Plain* computes all {tokens} tokens of each row,
*bucketed* has `bucket_by_length=True`: the same rows. *Computed* is how many tokens a step computes
for one that is no padding. *First epoch* is plain's first one over bucketed's, with what is
compiled in it: JAX, and XLA on TensorFlow, compile each width for itself, once. *Difference* is
that of the loss over the same rows. keras_mpt alone.

"""


def lengths(parts: Parts) -> str:
    """The section."""
    columns = [
        "backend", "plain", "bucketed", "plain / bucketed", "computed, plain",
        "computed, bucketed", "first epoch", "difference",
    ]  # fmt: skip
    lines, case, steps = [], "", 0
    for run, row in in_rows(parts["lengths"]):
        s, first, case, steps = row["seconds"], row["first"], row["case"], row["steps"]
        cells = [in_time(s["plain"]), in_time(s["bucketed"]), ratio(s["plain"], s["bucketed"])]
        cells += [f"{row['columns'][name] / row['used']:.2f}" for name in ("plain", "bucketed")]
        cells += [f"{first['plain'] / first['bucketed']:.2f}", f"{row['difference']:.0e}"]
        lines.append([run.label, *cells])
    tokens = case.rpartition(" ")[2]
    return _LENGTHS.format(case=case, steps=steps, tokens=tokens) + table(columns, lines)
