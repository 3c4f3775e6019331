"""The page's section on texts that are asked under many tasks."""

from __future__ import annotations

from benchmarks.cells import Parts, in_rows, in_time, ratio
from tools.markdown import table

_ONE_TEXT = """\
## One text under many tasks

Llama: {texts} texts, each under all T tasks, scored for two words of one token. In front of a text
a prompt changes all its states, so each task reads the text anew; with `prompt_position="after"`
the text is read once for all of them, and each task adds its prompt and the text's last token.
*Before* is keras_mpt's own way with prompts in front, whose keys and values are kept from call to
call; PEFT has no other place for them. It computes logits at the last position alone, and has as
many rows at once. *Difference* is that of scores: before's from PEFT's, after's from whole passes.

"""


def one_text(parts: Parts) -> str:
    """The section."""
    columns = [
        "case", "T", "backend", "after", "before / after", "PEFT / after", "PEFT / before",
        "difference",
    ]  # fmt: skip
    lines, results = [], parts["one_text"]
    for run, row in in_rows(results):
        s = row["seconds"]
        ratios = [ratio(s["before"], s["after"]), ratio(s["peft"], s["after"])]
        ratios.append(ratio(s["peft"], s["before"]))
        cells = [in_time(s["after"]), *ratios, f"{row['difference']:.0e}"]
        lines.append([row["case"], str(row["tasks"]), run.label, *cells])
    texts = next(iter(results.values()))["texts"]
    return _ONE_TEXT.format(texts=texts) + table(columns, lines)
