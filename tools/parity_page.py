"""From measurements to docs/parity.md. `tools/parity.py` makes them and writes the page."""

from __future__ import annotations

from typing import Any

from tools.machine import in_words
from tools.markdown import table

OWN = "keras-hub's own"
COLUMNS = ("family", "task type", "import", "export", "training", "base", OWN, "note")
SHARES = ("transformers", "peft", "model", "PEFT's", "PEFT's without cache", "keras_mpt's")

HEAD = """\
# The same numbers as PEFT

Made by `make parity` with the functions that `tests/parity/` tests with; do not edit.
Measured on the {backend} backend with
{packages}.

For each family that keras-hub reads Hugging Face weights of: a small random model of transformers
is saved, with what the released models of the family say of epsilons, activations, scales, windows
and positions; PEFT writes an adapter for it with random P, cols, rows and head;
`backbone_from_pretrained` reads the model and `load_adapter` the adapter. Four rows of three tasks,
every second row padded on the right. Numbers are the largest difference of logits at user
positions, relative to the largest logit.

- *import*: our model with PEFT's adapter, against PEFT's.
- *export*: PEFT's model with an adapter that `save_adapter` wrote, against ours. PEFT opens it
  without a warning.
- *training*: the largest difference between P, cols, rows (and head) after {steps} steps of plain
  SGD here and in PyTorch from the same start; an absolute number. Each of these arrays has a number
  that moved by {moved} or more.
- *base*: our backbone against transformers' model without any prompt.
- *{own}*: the same of `keras_hub.models.Backbone.from_preset`, which has no T5.

Import, export and base must be under {tolerance}.

"""

GENERATION = """\

## Generation

Tokens that `generate` gives greedily after a text, with mixed tasks, against those of PEFT's own
logits: brute force, PEFT's whole forward pass for each new token. The tests compare ours with that,
beams too (`tests/parity/test_generation.py`), whatever transformers is installed.

"""

TAIL = """\

PEFT's `generate` without its cache gives the tokens of its logits with every version seen. With
its cache, PEFT 0.21.2 on transformers 5.24 gives others in causal models: do not compare with it.

## Scaled embeddings

Gemma, Gemma 2, 3, 4 and T5Gemma 2 multiply token embeddings by √d. transformers does it inside
`embed_tokens`, and PEFT's prompts come after that; keras-hub does it behind the embedding, for
prompts too. A file holds PEFT's numbers, so `load_adapter`, `save_adapter` and the starts from a
source adapter divide or multiply P. The scale is read from the backbone's graph
(`keras_mpt/adapters/embedding_scale.py`); T5Gemma is the one exception, as transformers
multiplies outside of `embed_tokens` there. Two things follow: `layer.set_peft_state_dict` and
`layer.get_peft_state_dict`, which know no backbone, have the model's own scale; and with the same
learning rate plain SGD moves P, seen at the file's scale, d times as far here as in PEFT (Adam √d
times).

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
| `generate` with mixed task ids, greedy and beam: the tokens of PEFT's logits \
| `tests/parity/test_generation.py` |
| bfloat16, logits and `generate` | `tests/parity/test_peft_cases.py` |
| RANDOM | `tests/prompts/test_starts.py` |
| AVERAGE_SOURCE_TASKS, EXACT_SOURCE_TASK, ONLY_SOURCE_SHARED against PEFT's values \
| `tests/prompts/test_source_starts.py` |
| missing task ids | `tests/fitting/test_bad_input.py` |
"""


def render(report: dict[str, Any]) -> str:
    """The document, from the JSON."""
    said = {
        "packages": in_words(report["packages"]),
        "tolerance": f"{report['tolerance']:.0e}",
        "moved": f"{report['moved']:.2f}",
        "own": OWN,
    }
    lines = [[_cell(row[column]) for column in COLUMNS] for row in report["rows"]]
    shares = [[_share(row[column]) for column in SHARES] for row in report["generation"]]
    return (
        HEAD.format(**{**report, **said})
        + table(COLUMNS, lines, rule="---")
        + GENERATION
        + table(SHARES, shares, rule="---")
        + TAIL
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else ("0" if value == 0 else f"{value:.0e}")


def _share(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.0%}"
