"""The part on MiniLM."""

from __future__ import annotations

import argparse
import dataclasses

from studies.transfer import data
from studies.transfer.heads.methods import METHODS
from studies.transfer.heads.workbench import MAX_TOKENS, Workbench
from studies.transfer.part import Part, Wave
from studies.transfer.plan import FULL, Budget

SOURCES = ("sst2", "subj", "trec", "ag_news", "qnli", "mnli", "qqp", "cola")
TARGETS = ("cr", "tweet_irony", "rte", "snips", "mrpc")
MAIN = ("head", "prompt", "mpt_plain", "mpt_named", "peft_mpt", "full")
BUDGET = Budget(
    sources=SOURCES,
    pseudo_targets=("trec", "qqp"),
    source_steps=400,
    tuning_steps=100,
    teacher_epochs=4,
    source_rows=1200,
    steps=((4, 30), (16, 30), (32, 30), (FULL, 100)),
)
QUICK = dataclasses.replace(
    BUDGET,
    sources=("sst2", "trec"),
    pseudo_targets=(),
    source_steps=30,
    tuning_steps=10,
    source_rows=320,
    steps=((4, 12), (16, 12), (32, 12), (FULL, 24)),
    test_rows=100,
)
ABOUT = """\
All methods have the same MiniLM (6 layers, 384 wide, without dropout) and the same rows. All but
*head only* have the same batches and steps, Adam with learning rates that fall to 0 in a line, and
a linear head, of one learning rate for all, on the mean of the user's tokens: prompts and padding
are left out.
Prompts are equally long, and rows cut at {tokens} tokens. *k* is the training rows of each
class, drawn by the seed; *full* is all rows.
"""
COMPARED = (
    ("mpt", "prompt"), ("mpt", "full"), ("mpt", "head"), ("mpt", "mpt_plain"),
    ("mpt", "peft_mpt"), ("mpt_named", "prompt"), ("mpt_named", "full"),
    ("mpt_named", "mpt_plain"), ("mpt_named", "head"), ("mpt_plain", "full"),
    ("mpt_plain", "head"), ("mpt_plain", "prompt"), ("mpt_plain", "peft_mpt"),
    ("peft_mpt", "prompt"), ("prompt", "full"), ("prompt", "head"),
)  # fmt: skip
# Distinct for colour-blind readers too; ours are full lines, the rest are broken.
STYLES = {
    "head": ("#999999", ":", "s"),
    "prompt": ("#56B4E9", "--", "^"),
    "mpt_plain": ("#009E73", "-", "v"),
    "mpt": ("#0072B2", "-", "o"),
    "mpt_named": ("#B22222", "-", "*"),
    "peft_mpt": ("#444444", "--", "P"),
    "full": ("#E69F00", "-.", "X"),
}


def open_bench(given: argparse.Namespace, budget: Budget) -> Workbench:
    """The workbench that the command line asks for."""
    return Workbench(data.find_data(given.data), budget.test_rows)


HEADS = Part(
    "heads",
    "Heads: a sentence encoder with a linear head",
    METHODS,
    TARGETS,
    BUDGET,
    QUICK,
    (
        Wave((16,), 3, MAIN),
        # Which targets count hangs on these.
        Wave((FULL,), 1, MAIN),
        Wave((4,), 3, MAIN),
        Wave((16, 4), 3),
    ),
    ("cr", "snips"),
    {"part": "heads", "tokens": MAX_TOKENS},
    open_bench,
    COMPARED,
    (("mpt_plain", "peft_mpt"), ("mpt", "peft_mpt"), ("mpt", "mpt_plain")),
    ABOUT,
    STYLES,
    data.LARGEST,
)
