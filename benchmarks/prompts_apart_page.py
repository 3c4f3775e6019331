"""The page's section on long prompts that rows share."""

from __future__ import annotations

from benchmarks.cells import Parts, in_rows, in_time, ratio
from tools.markdown import table

_PROMPTS_APART = """\
## Long prompts, without a copy for each row

Llama, two layers of it. *Copies* gathers the keys and values of its prompt for each row; *apart*
attends to them where all rows have them, and joins that with the attention to a row's own tokens.
keras_mpt chooses by the positions that need no copy; here each way is taken whatever they are.
*Prompts* is how many different ones the batch has. Training is a step, text {new} new tokens after
half of S, greedily and all together. Seconds are the processor's, of all threads, PyTorch's of one,
as those of it that wait would count; a ratio above 1 is apart's gain. *Difference* is that of
logits; tokens must be the same. keras_mpt alone.

"""


def prompts_apart(parts: Parts) -> str:
    """The section."""
    columns = [
        "case", "prompts", "backend", "training, apart", "copies / apart", "text, apart",
        "copies / apart", "difference",
    ]  # fmt: skip
    lines, results = [], parts["prompts_apart"]
    for run, row in in_rows(results):
        s, cells = row["seconds"], []
        for what in ("training", "text"):
            here, copies = s[f"{what} apart"], s[f"{what} copies"]
            cells += [in_time(here), ratio(copies, here)]
        lines.append(
            [row["case"], str(row["prompts"]), run.label, *cells, f"{row['difference']:.0e}"]
        )
    new = next(iter(results.values()))["new"]
    return _PROMPTS_APART.format(new=new) + table(columns, lines)
