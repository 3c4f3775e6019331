"""From the numbers to docs/benchmarks/README.md."""

from __future__ import annotations

from typing import Any

from benchmarks.bank_page import bank
from benchmarks.cells import (
    by_backend,
    in_rows,
    in_time,
    least_seconds,
    mebibytes,
    peak,
    quotient,
    ratio,
)
from benchmarks.gpu_page import on_gpu
from benchmarks.lengths_page import lengths
from benchmarks.timing import middle
from tools.backends import NAMES
from tools.machine import in_words
from tools.markdown import table

_HEAD = """\
# Benchmarks

Made by `make bench` from `benchmarks/`; do not edit. The numbers are in `benchmarks.json`, and
`python -m benchmarks --render` makes this page and the charts of them anew.

{machine}, CPU only (GPUs [apart](#on-a-gpu)), {threads} threads for every framework, float32, with
{packages}.
{quick}
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

_TRAINING = """\
## A step of training

Forward, backward and Adam on P, the factors and a classifier's head; four tasks in a batch.

*Floor* is the bare backbone on the user's tokens alone: forward, and backward to the embeddings; no
prompts, no head, no loss. *With prompts* is that and the same on each of the batch's four prompts
once, (4, L) tokens: the least arithmetic there is for a causal model, whose prompts do not see the
text. Elsewhere a prompt's states depend on the row. *With head too* puts the vocabulary's logits
and their cross-entropy at the user's tokens on top of that, which no language model trains without.
All are given as our step's time divided by theirs.

![Training beside PEFT](training.svg)

"""

_COMPILATIONS = """
Compilations of our step in an epoch of whole batches: {counts}. PyTorch does not compile it.
"""

_LABEL_WORDS = """\
## A step that learns one word per text

{case}, with SmolLM2-135M's sizes (30 layers, 576 wide, 9 heads on 3, a vocabulary of 49,152 tied to
the logits), four tasks in a batch, one target of each row counts. keras_mpt computes logits at that
one alone; PEFT, as in transformers' `Trainer`, takes `labels` that are −100 elsewhere, and computes
all. Both in the same dtype; in bfloat16 prompts are float32 variables. *Blocks again* is
`remat=True`: blocks run once more on the way back, and keep nothing till then; of *half of the
blocks*, `remat=0.5`, the first half does.
Threads: {threads}.{note} Memory is explained below.

"""

_DISTILLATION = """\
## A step of source training, with teachers

Six tasks in a batch; the student's step alone, with both terms of distillation, and without the
hidden states'. *Over alone* is how many times the plain step it takes. The teachers' pass has no
way back: it adds about a forward pass to a step of forward and backward. *Difference* is that of
the teachers' logits in one mixed pass from each teacher's own.

"""

_GENERATION = """\
## Generation

Greedy, {new} new tokens after 32 tokens of text under 100 virtual ones. *First token* is the time
of one new token. *Tokens per second* counts all rows, the first token's time included. *A token
after the first* is what each further token takes; *bare* is keras-hub's own `CausalLM` of the same
weights without prompts, on a text that is longer by L. On TensorFlow both are compiled with
`jit_compile=True`.

"""

_TASKS = """\
## Against the number of tasks

GPT-2, L 20, B 8, S 64; a batch holds four tasks (one where there is but one), however many there
are. *Adam alone* is the same update of variables of the same shapes, its gradients given: every
task's factors are in it, whether the batch has the task or not. *Sparse* is the step of
`SparseTraining`, which touches the batch's tasks alone. *Its arrays* are these variables' gradients
and two moments each, 12 bytes a number. Memory is explained below.

![Cost against the number of tasks](tasks.svg)

"""

_MEMORY = """\
## Peak memory of training

Each model runs in a fresh process: frameworks are imported, the weights loaded, the batch made. The
number is the highest resident memory in the three steps that follow, less what was resident before
them: activations, gradients, the optimizer's state, and what compiling takes. Weights and imports
are not in it.

"""

_VARIANTS = """\
## bfloat16, and computing states again

{case}, keras_mpt alone. *bfloat16* is `from_preset(…, dtype="bfloat16")`: the backbone's weights
and arithmetic; prompts stay float32 variables. The others load the backbone under Keras's public
`keras.RematScope`: *remat activations* with `"activations"`, *remat blocks* with
`"list_of_layers"` and the names of its blocks. *jit_compile* is `compile(jit_compile=True)`: XLA
on TensorFlow, which Keras leaves out on a processor by default. *Difference* is that of logits from
float32's. A processor without bfloat16 arithmetic of its own, or a backend that does not use it, is
slower there.

"""

_ADAPTERS = """\
## Saving and loading an adapter

GPT-2, L 100, in milliseconds: `save_adapter` beside PEFT's `save_pretrained`; `load_adapter` into a
model that is there, beside PEFT's `load_peft_weights` and `set_peft_model_state_dict`. Both write
the same arrays, which is compared. Ours are written to temporary files, flushed to the disk and
renamed, so that an adapter is there whole or not at all; PEFT writes in place.

"""

_IMPORTS = """\
## Import

Seconds in a fresh process, without Python's own start. `import keras_mpt` loads keras-hub only when
a model is built; *after keras_hub* is what it adds to a process that has imported keras_hub.

"""


def render(report: dict[str, Any], gpus: dict[str, Any]) -> str:
    """The page, from the contents of `benchmarks.json` and `gpu.json`."""
    parts = report["results"]
    attention = {
        row["case"].partition(",")[0]: row["attention"]
        for result in parts.get("training", {}).values()
        for row in result["rows"]
    }
    head = _HEAD.format(
        machine=report["machine"],
        threads=report["threads"],
        packages=in_words(report["packages"]),
        quick="\n**A quick run: small sizes, few repeats. Its numbers mean nothing.**\n"
        if report["quick"]
        else "",
        tolerance="1e-4",
        attention=", ".join(f"{name}: {kind}" for name, kind in attention.items()) or "sdpa",
    )
    sections = [
        (_training, "training"),
        (_label_words, "label_words"),
        (lengths, "lengths"),
        (_distillation, "distillation"),
        (_generation, "generation"),
        (bank, "bank"),
        (_tasks, "tasks"),
        (_memory, "memory"),
        (_variants, "variants"),
        (_adapters, "adapters"),
        (_imports, "imports"),
    ]
    made = [section(parts) for section, name in sections if name in parts]
    return "\n".join([head, *made, on_gpu(gpus)])


def _training(parts: dict[str, Any]) -> str:
    columns = [
        "case", "backend", "PEFT", "keras_mpt", "ratio", "over floor", "with prompts",
        "with head too", "difference", "rounds",
    ]  # fmt: skip
    lines = []
    for backend, row in in_rows(parts["training"]):
        s = row["seconds"]
        least = least_seconds(s)
        cells = [in_time(s["peft"]), in_time(s["ours"]), ratio(s["peft"], s["ours"])]
        cells += [ratio(s["ours"], s["floor"]), ratio(s["ours"], least) if least else ""]
        whole = [a + b for a, b in zip(s["head"], s["prompts"], strict=True)] if least else []
        cells += [ratio(s["ours"], whole) if whole else ""]
        cells += [f"{row['difference']:.0e}", str(len(s["ours"]))]
        lines.append([row["case"], backend, *cells])
    counts = [
        f"{NAMES[backend]} {found['compilations']}"
        for backend, found in by_backend(parts["training"])
        if found["compilations"] is not None
    ]
    said = _COMPILATIONS.format(counts=", ".join(counts)) if counts else ""
    return _TRAINING + table(columns, lines) + said


def _label_words(parts: dict[str, Any]) -> str:
    columns = [
        "dtype", "backend", "PEFT", "keras_mpt", "ratio", "memory PEFT", "memory keras_mpt",
        "keras_mpt's / PEFT's", "difference", "rounds",
    ]  # fmt: skip
    lines, results = [], parts["label_words"]
    measured = results.get("torch", {"rows": []})["rows"]
    theirs = {row["dtype"]: row["bytes"].get("peft") for row in measured}
    case = ""
    for backend, row in in_rows(results):
        s, own, other = row["seconds"], row["bytes"]["ours"], theirs.get(row["dtype"])
        case = row["case"]
        cells = [in_time(s["peft"]), in_time(s["ours"]), ratio(s["peft"], s["ours"])]
        cells += [mebibytes(other), mebibytes(own)]
        cells += ["" if other is None or own is None else f"{own / other:.2f}"]
        cells += [f"{row['difference']:.0e}", str(len(s["ours"]))]
        lines.append([row["dtype"], backend, *cells])
    first = next(found for _, found in by_backend(results))
    said = {"threads": first["threads"], "note": first.get("note", "")}
    return _LABEL_WORDS.format(case=case, **said) + table(columns, lines)


def _distillation(parts: dict[str, Any]) -> str:
    columns = [
        "case", "backend", "alone", "distilled", "over alone", "logits only, over alone",
        "difference",
    ]  # fmt: skip
    lines = []
    for backend, row in in_rows(parts["distillation"]):
        s = row["seconds"]
        cells = [in_time(s["alone"]), in_time(s["distilled"]), ratio(s["distilled"], s["alone"])]
        cells += [ratio(s["logits only"], s["alone"]), f"{row['difference']:.0e}"]
        lines.append([row["case"], backend, *cells])
    return _DISTILLATION + table(columns, lines)


def _generation(parts: dict[str, Any]) -> str:
    results = parts["generation"]
    new = next(iter(results.values()))["new"]
    columns = ["case", "backend", "PEFT", "keras_mpt", "ratio"]
    first, whole, after = [], [], []
    for backend, row in in_rows(results):
        s, start = row["seconds"], [row["case"], backend]
        ours, theirs = s["ours first"], s["peft first"]
        first.append([*start, in_time(theirs), in_time(ours), ratio(theirs, ours)])
        rates = [[row["rows"] * new / t for t in s[side]] for side in ("peft", "ours")]
        cells = [f"{middle(rate):.0f}" for rate in rates]
        whole.append([*start, *cells, ratio(s["peft"], s["ours"])])
        each = {
            side: [
                (a - b) / (new - 1) for a, b in zip(s[side], s[f"{side} first"], strict=True)
            ]
            for side in ("peft", "ours", "bare")
        }  # fmt: skip
        # A median of differences: where one is near nothing, a ratio by rounds would be noise.
        medians = {side: middle(values) for side, values in each.items()}
        after.append(
            [*start, *(in_time(each[side]) for side in ("peft", "ours", "bare")),
             quotient(medians["peft"], medians["ours"]),
             quotient(medians["ours"], medians["bare"])]
        )  # fmt: skip
    third = ["case", "backend", "PEFT", "keras_mpt", "bare", "ratio", "ours over bare"]
    return (
        _GENERATION.format(new=new)
        + "First token:\n\n"
        + table(columns, first)
        + "\nTokens per second:\n\n"
        + table(columns, whole)
        + "\nA token after the first:\n\n"
        + table(third, after)
    )


def _tasks(parts: dict[str, Any]) -> str:
    columns = [
        "T", "numbers trained", "backend", "PEFT", "keras_mpt", "ratio", "sparse", "Adam alone",
        "memory PEFT", "memory keras_mpt", "its arrays",
    ]  # fmt: skip
    memory = parts.get("memory", {})
    lines = []
    for backend, row in in_rows(parts["tasks"], plain=True):
        s, case = row["seconds"], f"T {row['tasks']}"
        cells = [in_time(s["peft"]), in_time(s["ours"]), ratio(s["peft"], s["ours"])]
        cells += [in_time(s["sparse"]) if "sparse" in s else "", in_time(s["adam"])]
        cells += [mebibytes(peak(memory, "torch", case, "peft"))]
        cells += [mebibytes(peak(memory, backend, case, "ours"))]
        cells += [mebibytes(12 * row["parameters"])]
        start = [f"{row['tasks']:,}", f"{row['parameters']:,}", NAMES[backend]]
        lines.append([*start, *cells])
    return _TASKS + table(columns, lines)


def _memory(parts: dict[str, Any]) -> str:
    backends = [b for b in NAMES if b in parts["memory"]]
    columns = ["case", "PEFT", *(f"keras_mpt, {NAMES[b]}" for b in backends)]
    first = parts["memory"][backends[0]]["rows"]
    lines = []
    for case in dict.fromkeys(r["case"] for r in first if "ours" in r["bytes"]):
        if not case.startswith("T "):
            counts = [peak(parts["memory"], "torch", case, "peft")]
            counts += [peak(parts["memory"], b, case, "ours") for b in backends]
            lines.append([case, *map(mebibytes, counts)])
    return _MEMORY + table(columns, lines)


def _variants(parts: dict[str, Any]) -> str:
    columns = ["backend", "variant", "step", "float32's time / its", "difference", "memory"]
    lines, notes, case = [], [], ""
    for backend, found in by_backend(parts["variants"]):
        case = found["case"]
        plain = found["seconds"]["ours"]
        for name, values in found["seconds"].items():
            shown = "float32" if name == "ours" else name
            difference = found["differences"].get(name)
            cells = [in_time(values), "" if name == "ours" else ratio(plain, values)]
            cells += ["" if difference is None else f"{difference:.0e}"]
            cells += [mebibytes(peak(parts.get("memory", {}), backend, case, name))]
            lines.append([NAMES[backend], shown, *cells])
        for name, said in found["failed"].items():
            notes.append(f"- {name} cannot be had on {NAMES[backend]}: `{said}`")
        if "torch.compile" in found:
            notes.append(f"- {_compiled(found['torch.compile'])}")
    return _VARIANTS.format(case=case) + table(columns, lines) + "\n" + "\n".join(notes) + "\n"


def _compiled(found: dict[str, Any]) -> str:
    start = "PEFT's step under `torch.compile`, in this case"
    if "failed" in found:
        return f"{start}: could not be had: `{found['failed']}`"
    seconds = found["seconds"]
    gain = ratio(seconds["eager"], seconds["compiled"])
    times = f"{in_time(seconds['compiled'])} beside {in_time(seconds['eager'])}"
    return f"{start}: {times}, {gain} times as fast. The tables have it without."


def _adapters(parts: dict[str, Any]) -> str:
    columns = ["T", "backend", "PEFT saves", "keras_mpt saves", "ratio", "PEFT loads",
               "keras_mpt loads", "ratio"]  # fmt: skip
    lines = []
    for backend, row in in_rows(parts["adapters"]):
        cells = []
        for what in ("save", "load"):
            theirs, ours = row["seconds"][f"peft {what}"], row["seconds"][f"ours {what}"]
            cells += [in_time(theirs), in_time(ours), ratio(theirs, ours)]
        lines.append([f"{row['tasks']:,}", backend, *cells])
    return _ADAPTERS + table(columns, lines)


def _imports(parts: dict[str, Any]) -> str:
    columns = ["backend", "keras_hub", "keras_mpt", "keras_mpt over keras_hub", "after keras_hub"]
    lines = []
    for backend, found in by_backend(parts["imports"]):
        s = found["seconds"]
        cells = [in_time(s["keras_hub"]), in_time(s["keras_mpt"])]
        cells += [ratio(s["keras_mpt"], s["keras_hub"]), in_time(s["keras_mpt after"])]
        lines.append([NAMES[backend], *cells])
    return _IMPORTS + table(columns, lines)
