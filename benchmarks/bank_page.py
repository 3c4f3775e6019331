"""The page's section on banks of many adapters."""

from __future__ import annotations

from benchmarks.cells import Parts, in_rows, in_time, mebibytes, ratio
from tools.markdown import table

_BANK = """\
## Many adapters in one bank

A `PromptBank` of N ordinary prompts, each an adapter of its own, with a head of four classes on
MiniLM; GPT-2's rows are scored for three words. *Mixed* is a batch in which every row names another
adapter, as far as there are so many, and was asked before: GPT-2's keys and values of prompts are
kept. *First asked* has adapters that are in memory, and whose keys and values are not. *Alone* is
the same rows in one adapter's own model. *Model by model* is a row at a time, as models of one
adapter each have to answer such a batch. *Cold* is a batch under an adapter that has just been read
from its files, that reading included. *Difference* is that of a mixed batch's outputs from the
rows' own models'. keras_mpt alone: PEFT's mixed batches are of one adapter's tasks.

"""


def bank(parts: Parts) -> str:
    """The section."""
    columns = [
        "case", "N", "backend", "mixed", "over alone", "first asked, over alone",
        "model by model over mixed", "cold", "to read one", "memory of all", "difference",
    ]  # fmt: skip
    lines = []
    for run, row in in_rows(parts["bank"]):
        s = row["seconds"]
        cells = [in_time(s["bank"]), ratio(s["bank"], s["alone"])]
        cells += [ratio(s["fresh"], s["alone"]) if "fresh" in s else ""]
        cells += [ratio(s["apart"], s["bank"]) if "apart" in s else ""]
        cells += [in_time(s["cold"]), in_time([row["load"]]), mebibytes(row["bytes"])]
        cells += [f"{row['difference']:.0e}"]
        lines.append([row["case"], f"{row['adapters']:,}", run.label, *cells])
    return _BANK + table(columns, lines)
