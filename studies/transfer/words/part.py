"""The part on SmolLM2."""

from __future__ import annotations

import argparse

from studies.transfer import data
from studies.transfer.claims import alone
from studies.transfer.part import Part, Wave
from studies.transfer.plan import FULL, Budget
from studies.transfer.words import table
from studies.transfer.words.methods import METHODS
from studies.transfer.words.model import Model, find_model
from studies.transfer.words.tiny import write_tiny
from studies.transfer.words.workbench import MAX_TOKENS, Workbench

SOURCES = ("sst2", "subj", "trec", "ag_news", "mnli", "qnli", "qqp", "cola", "e2e_nlg")
TARGETS = ("cr", "snips", "tweet_irony", "disfl_qa", "mrpc", "rte")
# Of single texts, which a model of this size learns from a few rows; pairs take twice as long.
FIRST = ("cr", "snips")
# What the goals hang on.
CORE = (
    "zero_shot", "prompt", "factored", "mpt_plain", "mpt_nearest", "mpt_lowest", "full", "peft_mpt",
)  # fmt: skip
# From sources with more steps: what a longer training of them brings.
MORE = ("mpt_plain_sources_3", "mpt_nearest_sources_3", "mpt_frozen_1_sources_3")
MAIN = (*CORE, "mpt_frozen_4", "lora")
BUDGET = Budget(
    sources=SOURCES,
    # Short texts, which a few rows teach: what they score tells rates apart.
    pseudo_targets=("trec",),
    # Single texts too: a few steps on all sources would tell no rates apart.
    tuning_sources=("sst2", "subj", "ag_news"),
    source_steps=500,
    tuning_steps=48,
    # Ten times as many steps, and a rate that is √10 times lower.
    places_below=1,
    teacher_epochs=2,
    source_rows=640,
    steps=((4, 30), (16, 60), (32, 90), (FULL, 160)),
    tuned_shots=(16,),
    batch=16,
    source_batch=16,
    virtual_tokens=20,
    watched_rows=80,
    test_rows=300,
    tuning_rows=160,
    source_tokens=48,
)
QUICK = Budget(
    sources=("sst2", "trec", "e2e_nlg"),
    pseudo_targets=(),
    source_steps=6,
    tuning_steps=3,
    teacher_epochs=1,
    source_rows=32,
    steps=((4, 6), (16, 6), (32, 6), (FULL, 6)),
    batch=4,
    source_batch=4,
    virtual_tokens=4,
    watched_rows=8,
    test_rows=16,
)
ABOUT = f"""\
SmolLM2-135M-Instruct (30 layers, 576 wide, 4-bit weights of a GGUF file made whole, computed in
{{dtype}}) reads each row as a prompt that ends with "Answer:", and answers with one word for
each class, or with free text. Only the answer's tokens count in the loss. Nothing is added to the
model for a task but what the method trains: no head. Prompts are cut on the left at {MAX_TOKENS}
tokens.
All methods have the same rows, batches and steps (of two methods three times the steps are shown as
well), and Adam with learning rates that fall to 0 in a line. Each row weighs the same, however long
its answer is, and batches hold rows of like lengths.
The rate of the sources' training is chosen for few steps on few sources, and is √10 times lower in
the whole training, which takes ten times as many, or thirty: sources with three times the steps and
rows keep that rate. *k* is the training rows of each class, drawn by
the seed (of free text: rows); *full* is all rows.

{table.as_markdown()}
"""
COMPARED = (
    ("mpt_plain", "prompt"), ("mpt_plain", "factored"), ("mpt_plain", "full"),
    ("mpt_plain", "lora"), ("mpt_plain", "peft_mpt"), ("mpt_plain", "zero_shot"),
    ("mpt_plain", "mpt_one_speed"), ("mpt", "mpt_plain"), ("mpt", "prompt"), ("mpt", "full"),
    ("mpt", "peft_mpt"),
    ("mpt_nearest", "mpt_plain"), ("mpt_nearest", "prompt"),
    ("mpt_lowest", "mpt_plain"), ("mpt_lowest", "mpt_nearest"), ("mpt_lowest", "prompt"),
    ("mpt_lowest", "full"), ("mpt_lowest", "lora"), ("mpt_lowest", "peft_mpt"),
    ("mpt_frozen_1_lowest", "prompt"), ("mpt_frozen_1_lowest", "mpt_frozen_1"),
    ("mpt_frozen_1", "prompt"), ("mpt_frozen_4", "prompt"), ("mpt_frozen_4", "mpt_plain"),
    *((f"{name}_sources_3", other) for name in ("mpt_plain", "mpt_nearest")
      for other in (name, "prompt", "full")),
    *((f"{name}_sources_3", other) for name in ("mpt_frozen_1", "mpt_frozen_4")
      for other in (name, "prompt")),
    ("mpt_100", "prompt_100"), ("mpt_100", "mpt_plain"),
    ("prompt_after", "prompt"), ("mpt_after", "mpt_plain"), ("mpt_after", "prompt_after"),
    ("prompt_3", "prompt"), ("mpt_plain", "prompt_3"), ("mpt_plain_3", "prompt_3"),
    ("mpt_plain_3", "mpt_plain"), ("mpt_plain_3", "full"),
    ("factored", "prompt"), ("prompt_random", "prompt"), ("prompt_text", "prompt"),
    ("prompt_100", "prompt"), ("peft_mpt", "prompt"), ("full", "prompt"), ("lora", "full"),
)  # fmt: skip
STYLES = {
    "zero_shot": ("#999999", ":", "s"),
    "prompt": ("#56B4E9", "--", "^"),
    "prompt_random": ("#9467BD", "--", "v"),
    "prompt_text": ("#CC79A7", "--", "<"),
    "prompt_100": ("#17BECF", "--", ">"),
    "prompt_after": ("#4682B4", "--", "+"),
    "prompt_3": ("#1F4E79", "--", "1"),
    "factored": ("#D55E00", "--", "D"),
    "mpt_one_speed": ("#7F7F00", "-", "H"),
    "mpt_plain": ("#009E73", "-", "o"),
    "mpt_plain_3": ("#2CA02C", "-", "2"),
    "mpt": ("#0072B2", "-", "*"),
    "mpt_nearest": ("#B22222", "-", "h"),
    "mpt_lowest": ("#FF7F0E", "-", "X"),
    "mpt_frozen_1_lowest": ("#A0522D", "-", "P"),
    "mpt_frozen_1": ("#BCBD22", "-", "p"),
    "mpt_frozen_4": ("#8C564B", "-", "d"),
    "mpt_plain_sources_3": ("#006400", "-", "o"),
    "mpt_nearest_sources_3": ("#8B0000", "-", "h"),
    "mpt_frozen_1_sources_3": ("#808000", "-", "p"),
    "mpt_frozen_4_sources_3": ("#5C4033", "-", "d"),
    "mpt_after": ("#556B2F", "-", "4"),
    "mpt_100": ("#E377C2", "-", "8"),
    "peft_mpt": ("#444444", "-.", "P"),
    "lora": ("#F0E442", "-.", "x"),
    "full": ("#E69F00", "-.", "X"),
}


def open_bench(given: argparse.Namespace, budget: Budget) -> Workbench:
    """The workbench that the command line asks for."""
    is_tiny = given.quick and given.model is None
    import torch

    # Of several processes one makes the folder.
    with alone(given.work / "claims", "model"):
        folder = write_tiny(given.work / "tiny") if is_tiny else find_model(given.model, given.work)
    model = Model(folder, "float32" if is_tiny else given.dtype)
    if not torch.cuda.is_available():
        # PyTorch's fused attention goes back through short rows slowly on a CPU: 15% of a step.
        torch.backends.cuda.enable_flash_sdp(False)
    return Workbench(data.find_data(given.data), budget.test_rows, model)


WORDS = Part(
    "words",
    "Words: a language model that answers",
    METHODS,
    TARGETS,
    BUDGET,
    QUICK,
    (
        Wave((16,), 3, CORE, FIRST),
        Wave((4,), 3, CORE, FIRST),
        Wave((16,), 3, MAIN, FIRST),
        # Had prompt tuning enough steps?
        Wave((16,), 3, ("prompt_3", "mpt_plain_3"), FIRST),
        # Which targets count hangs on these.
        Wave((FULL,), 1, ("prompt", "mpt_plain", "mpt_frozen_4", "full"), FIRST),
        Wave((16,), 3, MAIN, TARGETS[:4]),
        Wave((FULL,), 1, ("prompt", "mpt_plain", "mpt_frozen_4", "full")),
        Wave((16,), 3, MORE, ("cr", "snips", "disfl_qa")),
        Wave((16, 4), 3, MAIN),
        Wave((4, 16), 5, MAIN),
        Wave((4, 16), 5),
        Wave((32,), 5),
        Wave((FULL,), 1),
    ),
    ("cr", "snips", "disfl_qa"),
    {"part": "words"},
    open_bench,
    COMPARED,
    (("mpt_plain", "peft_mpt"), ("mpt", "peft_mpt"), ("mpt", "mpt_plain")),
    ABOUT,
    STYLES,
    data.LARGEST,
)
