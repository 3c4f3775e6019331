"""From the numbers to docs/benchmarks/README.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.bank_page import bank
from benchmarks.beside_peft import distillation, generation, label_words, training
from benchmarks.cells import lettered, together
from benchmarks.costs import adapters, imports, memory, tasks, variants
from benchmarks.gpu_page import on_gpu
from benchmarks.lengths_page import lengths
from benchmarks.one_text_page import one_text
from benchmarks.prompts_apart_page import prompts_apart
from benchmarks.summary import summary
from tools.machine import in_words

_HEAD = """\
# Benchmarks

Made by `make bench` from `benchmarks/`; do not edit. The numbers are in `processors/`, and
`python -m benchmarks --render` makes this page and the charts of them anew.

CPU only (GPUs [apart](#on-a-gpu)), the same threads for every framework, float32 where nothing else
is said, on

{machines}

A kind of processor is its name and the instructions that matter to matrix products; each has its
own file in `processors/`, and a run replaces no other kind's numbers. *Extensions not kept* is
whatever was had before they were: not all of its parts need be of one kind.

## How it is measured

keras_mpt and PEFT run in one process on the same weights and the same batches, in turn, round by
round; every second round goes the other way about. The first round, with compilation in it, is
left out. **A ratio is PEFT's time divided by ours, round by round: above 1 keras_mpt is faster.**
Given are medians, and in brackets the smallest and the largest. Before anything is timed outputs
are compared: *difference* is that of logits at the user's positions, relative to the largest, and
may be {tolerance} at most; generated tokens must be the same.

PEFT is at its best: attention as transformers chooses it ({attention}),
no gradients but of prompts and a classifier's head, no keys and values kept in training, the fused
Adam. On each backend it is the same PyTorch; what differs between rows is chance.

Letters: L virtual tokens, B rows, S tokens in a row, T tasks. GPT-2 and Llama are 6 layers, 512
wide, with 8,000 tokens (Llama: 8 heads on 4); *MiniLM* is a BERT of 6 layers, 384 wide; T5 has 6
and 6 layers, 512 wide, S tokens for its encoder, which is prompted, and half as many for its
decoder. Weights are random, dropout is off.
"""


def render(reports: Sequence[dict[str, Any]], gpus: dict[str, Any]) -> str:
    """The page, from the contents of the folder of processors and of `gpu.json`."""
    named = lettered(reports)
    parts = together(named)
    attention = {
        row["case"].partition(",")[0]: row["attention"]
        for result in parts.get("training", {}).values()
        for row in result["rows"]
    }
    head = _HEAD.format(
        machines="\n".join(_machine(letter, report) for letter, report in named.items()),
        tolerance="1e-4",
        attention=", ".join(f"{name}: {kind}" for name, kind in attention.items()) or "sdpa",
    )
    sections = [
        (training, "training"),
        (label_words, "label_words"),
        (lengths, "lengths"),
        (prompts_apart, "prompts_apart"),
        (one_text, "one_text"),
        (distillation, "distillation"),
        (generation, "generation"),
        (bank, "bank"),
        (tasks, "tasks"),
        (memory, "memory"),
        (variants, "variants"),
        (adapters, "adapters"),
        (imports, "imports"),
    ]
    made = [section(parts) for section, name in sections if name in parts]
    in_short = [summary(parts, [*named])] if len(reports) > 1 else []
    return "\n".join([head, *in_short, *made, on_gpu(gpus)])


def _machine(letter: str, report: dict[str, Any]) -> str:
    """What a machine's numbers were measured on."""
    start = f"**{letter}**: {report['machine']}" if letter else report["machine"]
    made = f"{start}; {report['threads']} threads; {in_words(report['packages'])}."
    quick = " **A quick run: small sizes, few repeats. Its numbers mean nothing.**"
    return f"- {made}{quick if report['quick'] else ''}"
