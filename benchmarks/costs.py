"""The page's sections on what tasks, memory, precision, files and imports cost."""

from __future__ import annotations

from typing import Any

from benchmarks.cells import Parts, in_rows, in_time, mebibytes, peak, pictures, ratio
from tools.markdown import table

_TASKS = """\
## Against the number of tasks

GPT-2, L 20, B 8, S 64; a batch holds four tasks (one where there is but one), however many there
are. *Adam alone* is the same update of variables of the same shapes, its gradients given: every
task's factors are in it, whether the batch has the task or not. *Sparse* is the step of
`SparseTraining`, which touches the batch's tasks alone. *Its arrays* are these variables' gradients
and two moments each, 12 bytes a number. Memory is explained below.

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


def tasks(parts: Parts) -> str:
    columns = [
        "T", "numbers trained", "backend", "PEFT", "keras_mpt", "ratio", "sparse", "Adam alone",
        "memory PEFT", "memory keras_mpt", "its arrays",
    ]  # fmt: skip
    memory = parts.get("memory", {})
    lines = []
    for run, row in in_rows(parts["tasks"]):
        s, case = row["seconds"], f"T {row['tasks']}"
        cells = [in_time(s["peft"]), in_time(s["ours"]), ratio(s["peft"], s["ours"])]
        cells += [in_time(s["sparse"]) if "sparse" in s else "", in_time(s["adam"])]
        cells += [mebibytes(peak(memory, run.peft, case, "peft"))]
        cells += [mebibytes(peak(memory, run, case, "ours"))]
        cells += [mebibytes(12 * row["parameters"])]
        start = [f"{row['tasks']:,}", f"{row['parameters']:,}", run.label]
        lines.append([*start, *cells])
    shown = pictures(parts, "tasks", "Cost against the number of tasks")
    return _TASKS + shown + table(columns, lines)


def memory(parts: Parts) -> str:
    results = parts["memory"]
    columns = ["case", "backend", "PEFT", "keras_mpt", "keras_mpt's / PEFT's"]
    lines = []
    for run, row in in_rows(results):
        own, case = row["bytes"].get("ours"), row["case"]
        if own is not None and not case.startswith("T "):
            other = peak(results, run.peft, case, "peft")
            share = "" if other is None else f"{own / other:.2f}"
            lines.append([case, run.label, mebibytes(other), mebibytes(own), share])
    return _MEMORY + table(columns, lines)


def variants(parts: Parts) -> str:
    columns = ["backend", "variant", "step", "float32's time / its", "difference", "memory"]
    lines, notes, case = [], [], ""
    for run, found in parts["variants"].items():
        case = found["case"]
        plain = found["seconds"]["ours"]
        for name, values in found["seconds"].items():
            shown = "float32" if name == "ours" else name
            difference = found["differences"].get(name)
            cells = [in_time(values), "" if name == "ours" else ratio(plain, values)]
            cells += ["" if difference is None else f"{difference:.0e}"]
            cells += [mebibytes(peak(parts.get("memory", {}), run, case, name))]
            lines.append([run.label, shown, *cells])
        for name, said in found["failed"].items():
            notes.append(f"- {name} cannot be had on {run.label}: `{said}`")
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


def adapters(parts: Parts) -> str:
    columns = ["T", "backend", "PEFT saves", "keras_mpt saves", "ratio", "PEFT loads",
               "keras_mpt loads", "ratio"]  # fmt: skip
    lines = []
    for run, row in in_rows(parts["adapters"]):
        cells = []
        for what in ("save", "load"):
            theirs, ours = row["seconds"][f"peft {what}"], row["seconds"][f"ours {what}"]
            cells += [in_time(theirs), in_time(ours), ratio(theirs, ours)]
        lines.append([f"{row['tasks']:,}", run.label, *cells])
    return _ADAPTERS + table(columns, lines)


def imports(parts: Parts) -> str:
    columns = ["backend", "keras_hub", "keras_mpt", "keras_mpt over keras_hub", "after keras_hub"]
    lines = []
    for run, found in parts["imports"].items():
        s = found["seconds"]
        cells = [in_time(s["keras_hub"]), in_time(s["keras_mpt"])]
        cells += [ratio(s["keras_mpt"], s["keras_hub"]), in_time(s["keras_mpt after"])]
        lines.append([run.label, *cells])
    return _IMPORTS + table(columns, lines)
