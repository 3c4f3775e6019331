"""Writes docs/parity.json and docs/parity.md: run `python -m tests.parity.report`.

It measures what the tests measure, with the same functions, on the backend that it runs on.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras

from tests.parity.families import ALL_ON, FAMILIES, TRAINED

DOCS = Path(__file__).parents[2] / "docs"
JSON_FILE, DOCUMENT = DOCS / "parity.json", DOCS / "parity.md"
PACKAGES = ("keras", "keras-hub", "peft", "transformers", "torch")
COLUMNS = ("family", "task type", "import", "export", "training", "base")

HEAD = """\
# The same numbers as PEFT

Made by `python -m tests.parity.report` with the functions that `tests/parity/` tests with; do not
edit. Measured on the {backend} backend with
{packages}.

For each family that keras-hub reads Hugging Face weights of: a small random model of transformers
is saved, PEFT writes an adapter for it with random P, cols, rows and head, and `load_adapter` reads
both. Four rows of three tasks, every second row padded on the right. Numbers are the largest
difference of logits at user positions, relative to the largest logit.

- *import*: our model with PEFT's adapter, against PEFT's.
- *export*: PEFT's model with an adapter that `save_adapter` wrote, against ours. PEFT opens it
  without a warning.
- *training*: the largest difference between P, cols, rows (and head) after {steps} steps of plain
  SGD here and in PyTorch from the same start; an absolute number. Each of these arrays has a number
  that moved by {moved} or more.
- *base*: keras-hub's model against transformers' without any prompt: what is not ours to mend.

Import and export must be under {tolerance}. Where keras-hub's model is another function (BERT's
GELU), they may be more by what the two functions differ by on the same prompts and tokens, which
is measured in PEFT alone.

"""

TAIL = """\

## Scaled embeddings

Gemma, Gemma 2, 3, 4 and T5Gemma 2 multiply token embeddings by √d. transformers does it inside
`embed_tokens`, and PEFT's prompts come after that; keras-hub does it behind the embedding, for
prompts too. A file holds PEFT's numbers, so `load_adapter`, `save_adapter` and the starts from a
source adapter divide or multiply P. The scale is read from the backbone's graph
(`keras_mpt/adapters/embedding_scale.py`); T5Gemma is the one exception, as transformers
multiplies outside of `embed_tokens` there. Two things follow: `layer.load_state_dict` and
`layer.state_dict`, which know no backbone, have the model's own scale; and with the same learning
rate plain SGD moves P, seen at the file's scale, d times as far here as in PEFT (Adam √d times).

## Where keras_mpt does otherwise on purpose

Each is shown by a test of both behaviours, in `tests/parity/test_where_peft_differs.py` or, for
decoders as classifiers, `tests/parity/test_heads.py`.

| | PEFT | keras_mpt |
|---|---|---|
| TEXT start | both factors start at N(0, 0.02): 0.0004 of the text is left \
| each task starts as the text |
| a loaded adapter | refuses `is_trainable=True` | trains on |
| QUESTION_ANS, FEATURE_EXTRACTION | drop `task_ids` and fail | take them |
| BERT's pooler | reads the first prompt token \
| reads [CLS]; `prompt_position="before"` gives PEFT's way |
| a decoder as a classifier (GPT-2, Llama) | reads the last position, padding or not \
| reads the last token, as transformers does without prompts |
| decoder prompts (M = 2) | trained, then left out by `generate` | used by `generate` too |

## PEFT's own tests

What PEFT's tests of this method run, and where its values are checked here.

| case | here |
|---|---|
| preparation: only prompts train | `tests/models/test_backbone.py`, `test_text_classifier.py` |
| preparation for int8 | `tests/parity/test_peft_cases.py` |
| save and reload, `.safetensors` and `.bin` | `tests/parity/test_peft_cases.py`, \
`tests/adapters/test_adapter.py` |
| `generate` with mixed task ids, PEFT's cache on and off, greedy and beam: the same tokens \
| `tests/parity/test_generation.py` |
| bfloat16, logits and `generate` | `tests/parity/test_peft_cases.py` |
| RANDOM | `tests/prompts/test_starts.py` |
| AVERAGE_SOURCE_TASKS, EXACT_SOURCE_TASK, ONLY_SOURCE_SHARED against PEFT's values \
| `tests/prompts/test_source_starts.py` |
| missing task ids | `tests/fitting/test_bad_input.py` |
"""


def measure() -> dict[str, Any]:
    """All measurements, as JSON holds them."""
    from tests.parity.measure import TOLERANCE, base_difference, export_error, import_error
    from tests.parity.measure import make_pair as make
    from tests.parity.training import STEPS, training_error

    rows, moved = [], []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            pair = make(family, Path(folder))
            row = {"family": family.name, "task type": family.task_type, "note": family.note}
            row |= {"import": import_error(pair).error, "export": export_error(pair).error}
            row |= {"base": base_difference(pair), "training": None}
            if family.name in TRAINED:
                row["training"], least = training_error(pair)
                moved.append(least)
        rows.append(row)
    packages = {name: version(name).partition("+")[0] for name in PACKAGES}
    common = {"backend": keras.backend.backend(), "packages": packages, "tolerance": TOLERANCE}
    return {**common, "steps": STEPS, "moved": min(moved), "rows": rows}


def render(report: dict[str, Any]) -> str:
    """The document, from the JSON."""
    packages = ", ".join(f"{name} {v}" for name, v in report["packages"].items())
    numbers = {"tolerance": f"{report['tolerance']:.0e}", "moved": f"{report['moved']:.2f}"}
    lines = [" | ".join(["", *COLUMNS, "note", ""]).strip(), "|" + "---|" * (len(COLUMNS) + 1)]
    for row in report["rows"]:
        cells = [_cell(row[column]) for column in COLUMNS]
        lines.append(" | ".join(["", *cells, row["note"], ""]).strip())
    head = HEAD.format(**{**report, **numbers, "packages": packages})
    return head + "\n".join(lines) + "\n" + TAIL


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else ("0" if value == 0 else f"{value:.0e}")


def main() -> None:
    """Measures and writes both files."""
    if keras.backend.backend() != ALL_ON:
        raise SystemExit(f"set KERAS_BACKEND={ALL_ON}, which the tests measure all families on")
    report = measure()
    JSON_FILE.write_text(json.dumps(report, indent=1) + "\n")
    DOCUMENT.write_text(render(report))


if __name__ == "__main__":
    main()
