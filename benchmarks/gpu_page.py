"""The page's section on GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.cells import in_time, mebibytes, ratio
from benchmarks.timing import middle
from tools.backends import NAMES
from tools.machine import in_words
from tools.markdown import table

_GPU = """\
## On a GPU

Made by `benchmarks/gpu.sh` in bfloat16, on PyTorch and JAX; the numbers are in `gpu.json`.
{found}"""

_NOT_RUN = """
Not run yet: these pages were made where no GPU could be had.
"""

_HOW = """
*GPT-2 medium* is 24 layers, 1,024 wide, with 50,257 tokens; *Llama 1B* has the sizes of Llama 3.2
1B (16 layers, 2,048 wide, 32 heads on 8, 128,256 tokens, tied), *SmolLM2* those of SmolLM2-135M (30
layers, 576 wide, 9 heads on 3, 49,152 tokens, tied). Weights are random, four tasks in a batch.
*One word* is one target per row: PEFT's side takes `labels` that are −100 elsewhere.

Both sides compute in bfloat16, with prompts as float32 variables, and take turns in one process, as
above; the GPU has finished before a clock is read. PEFT's batch lies on the GPU already, ours comes
from the host in each step, with the checks of `train_on_batch`. A first call and a round, with
compilation in them, are left out. PEFT is not under `torch.compile`, which compiles longer than all
of this takes. Before anything is timed logits and greedy tokens are compared in float32 without
TF32, in two layers of the shape's own width: *difference* is that of logits, relative to the
largest, and may be 1e-4 at most; the tokens must be the same.

*Memory* is what a step takes on PyTorch beside weights and optimizer, at its highest; XLA counts
for a process's life alone, so JAX has none here.
"""

_TRAINING = """
A step of training:

"""

_GENERATION = """
Greedy generation of {new} new tokens after 32 tokens of text, in tokens per second of all rows.
*Same tokens* is the share that PEFT makes too: in bfloat16 each side rounds in its own order, and a
row goes its own way after the first token that differs.

"""


def on_gpu(devices: dict[str, Any]) -> str:
    """The section, from the content of `gpu.json`; of an empty one what there is to say."""
    found = [_HOW, *(_device(name, of) for name, of in devices.items())] if devices else [_NOT_RUN]
    return _GPU.format(found="".join(found))


def _device(name: str, found: dict[str, Any]) -> str:
    parts = [f"\n### {name}\n\nWith {in_words(found['packages'])}.\n"]
    if found["quick"]:
        parts.append("\n**A quick run: small sizes, few repeats. Its numbers mean nothing.**\n")
    rows = [row for row in found["rows"] if "seconds" in row]
    training = [row for row in rows if row["kind"] == "training"]
    generation = [row for row in rows if row["kind"] == "generation"]
    if training:
        parts.append(_TRAINING + _of_training(training))
    if generation:
        parts.append(_GENERATION.format(new=generation[0]["new"]) + _of_generation(generation))
    notes = [*_failures(found["rows"]), *_left_out(found.get("left_out", []))]
    return "".join(parts) + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")


def _of_training(rows: Sequence[dict[str, Any]]) -> str:
    columns = [
        "case", "backend", "PEFT", "keras_mpt", "ratio", "memory PEFT", "memory keras_mpt",
        "keras_mpt's / PEFT's", "difference", "rounds",
    ]  # fmt: skip
    lines = []
    for row in rows:
        theirs, ours = (row["bytes"].get(side) for side in ("peft", "ours"))
        cells = [*_times(row, in_time), mebibytes(theirs), mebibytes(ours)]
        cells += [f"{ours / theirs:.2f}" if theirs and ours else "", *_checked(row)]
        lines.append([row["case"], NAMES[row["backend"]], *cells])
    return table(columns, lines)


def _of_generation(rows: Sequence[dict[str, Any]]) -> str:
    columns = [
        "case", "backend", "PEFT", "keras_mpt", "ratio", "same tokens", "difference", "rounds",
    ]  # fmt: skip
    lines = []
    for row in rows:

        def rate(seconds: Sequence[float], tokens: int = row["rows"] * row["new"]) -> str:
            return f"{tokens / middle(seconds):,.0f}"

        cells = [*_times(row, rate), f"{row['same']:.0%}", *_checked(row)]
        lines.append([row["case"], NAMES[row["backend"]], *cells])
    return table(columns, lines)


def _times(row: dict[str, Any], shown: Any) -> list[str]:
    """Each side's, and PEFT's by ours; a side that failed has none."""
    seconds = row["seconds"]
    cells = [shown(seconds[side]) if side in seconds else "failed" for side in ("peft", "ours")]
    has_both = {"peft", "ours"} <= set(seconds)
    return [*cells, ratio(seconds["peft"], seconds["ours"]) if has_both else ""]


def _checked(row: dict[str, Any]) -> list[str]:
    rounds = max((len(values) for values in row["seconds"].values()), default=0)
    return [f"{row['difference']:.0e}", str(rounds)]


def _failures(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    sides = {"peft": ", PEFT", "ours": ", keras_mpt"}
    for row in rows:
        for side, sentence in row.get("failed", {}).items():
            where = f"{row['kind']}, {row['case']}, {NAMES[row['backend']]}{sides.get(side, '')}"
            yield f"{where}: `{sentence}`"


def _left_out(keys: Sequence[Sequence[str]]) -> Iterator[str]:
    if keys:
        names = [f"{kind}, {case}, {NAMES[backend]}" for kind, case, backend in keys]
        yield f"Not measured, for want of time: {'; '.join(names)}."
