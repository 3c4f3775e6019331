"""The page's sections on training and generating beside PEFT."""

from __future__ import annotations

from benchmarks.cells import (
    Parts,
    in_rows,
    in_time,
    least_seconds,
    mebibytes,
    pictures,
    quotient,
    ratio,
)
from benchmarks.timing import middle
from tools.markdown import table

_TRAINING = """\
## A step of training

Forward, backward and Adam on P, the factors and a classifier's head; four tasks in a batch.

*Floor* is the bare backbone on the user's tokens alone: forward, and backward to the embeddings; no
prompts, no head, no loss. *With prompts* is that and the same on each of the batch's four prompts
once, (4, L) tokens: the least arithmetic there is for a causal model, whose prompts do not see the
text. Elsewhere a prompt's states depend on the row. *With head too* puts the vocabulary's logits
and their cross-entropy at the user's tokens on top of that, which no language model trains without.
All are given as our step's time divided by theirs.

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


def training(parts: Parts) -> str:
    columns = [
        "case", "backend", "PEFT", "keras_mpt", "ratio", "over floor", "with prompts",
        "with head too", "difference", "rounds",
    ]  # fmt: skip
    lines = []
    measured = [parts[name] for name in ("training", "long_prompts") if name in parts]
    for run, row in (pair for results in measured for pair in in_rows(results)):
        s = row["seconds"]
        least = least_seconds(s)
        cells = [in_time(s["peft"]), in_time(s["ours"]), ratio(s["peft"], s["ours"])]
        cells += [ratio(s["ours"], s["floor"]), ratio(s["ours"], least) if least else ""]
        whole = [a + b for a, b in zip(s["head"], s["prompts"], strict=True)] if least else []
        cells += [ratio(s["ours"], whole) if whole else ""]
        cells += [f"{row['difference']:.0e}", str(len(s["ours"]))]
        lines.append([row["case"], run.label, *cells])
    counts = [
        f"{run.label} {found['compilations']}"
        for run, found in parts["training"].items()
        if found["compilations"] is not None
    ]
    said = _COMPILATIONS.format(counts=", ".join(counts)) if counts else ""
    shown = pictures(parts, "training", "Training beside PEFT")
    return _TRAINING + shown + table(columns, lines) + said


def label_words(parts: Parts) -> str:
    columns = [
        "dtype", "backend", "PEFT", "keras_mpt", "ratio", "memory PEFT", "memory keras_mpt",
        "keras_mpt's / PEFT's", "difference", "rounds",
    ]  # fmt: skip
    lines, results = [], parts["label_words"]
    case = ""
    for run, row in in_rows(results):
        s, own, case = row["seconds"], row["bytes"]["ours"], row["case"]
        measured = results.get(run.peft, {"rows": []})["rows"]
        other = {of["dtype"]: of["bytes"].get("peft") for of in measured}.get(row["dtype"])
        cells = [in_time(s["peft"]), in_time(s["ours"]), ratio(s["peft"], s["ours"])]
        cells += [mebibytes(other), mebibytes(own)]
        cells += ["" if other is None or own is None else f"{own / other:.2f}"]
        cells += [f"{row['difference']:.0e}", str(len(s["ours"]))]
        lines.append([row["dtype"], run.label, *cells])
    first = next(iter(results.values()))
    said = {"threads": first["threads"], "note": first.get("note", "")}
    return _LABEL_WORDS.format(case=case, **said) + table(columns, lines)


def distillation(parts: Parts) -> str:
    columns = [
        "case", "backend", "alone", "distilled", "over alone", "logits only, over alone",
        "difference",
    ]  # fmt: skip
    lines = []
    for run, row in in_rows(parts["distillation"]):
        s = row["seconds"]
        cells = [in_time(s["alone"]), in_time(s["distilled"]), ratio(s["distilled"], s["alone"])]
        cells += [ratio(s["logits only"], s["alone"]), f"{row['difference']:.0e}"]
        lines.append([row["case"], run.label, *cells])
    return _DISTILLATION + table(columns, lines)


def generation(parts: Parts) -> str:
    results = parts["generation"]
    new = next(iter(results.values()))["new"]
    columns = ["case", "backend", "PEFT", "keras_mpt", "ratio"]
    first, whole, after = [], [], []
    for run, row in in_rows(results):
        s, start = row["seconds"], [row["case"], run.label]
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
