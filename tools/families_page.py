"""From measurements to docs/families.md. `tools/families.py` makes them and writes the page."""

from __future__ import annotations

from typing import Any

from tests.families.configurations import FAMILIES, NOT_TEXT, REFUSED
from tools.backends import NAMES
from tools.markdown import table

BACKENDS = ("jax", "tensorflow", "torch")

_HEAD = """# Which backbones work

Made by `make families` from what `tests/families/` measures; do not edit by hand. A quick test
checks that this page and the numbers in `families.json` belong together.

One rule serves every family, with no branch per family (see [architecture.md](architecture.md)).
Each row is a tiny backbone of keras-hub {keras_hub} with Keras {keras}, its weights moved by random
draws: {length} virtual tokens and {tokens} tokens in {rows} rows, every other one padded on the
right. The prompt stands where it does by default: behind the start token in encoders, else in
front. Errors are the largest absolute difference over all outputs, over the backends run; outputs
are of size 1 to {scale:.0f}.

- **Own embeddings**: the cut graph, fed with the backbone's own embeddings, against the backbone.
- **Real tokens**: a prompt made of token embeddings against the backbone (and keras-hub's tasks) on
  those tokens' ids, at the user's positions. Encoder-decoders have a prompt on both sides.
- **Padded**: the same on rows with padding on the right.
- **Gradient**: the smallest gradient that any row of the prompt gets.
- **`.keras`**: outputs after saving and loading, all weights being equal bit by bit.

"""

_NOTES = """
`token_dim` is the width of the token embedding; it is given where the hidden states have
another. RWKV-7's backbone gives logits.

keras-hub 0.32 leaves `tie_word_embeddings` out of the config of a Llama, so a tied one
(Llama 3.2) cannot be loaded from `.keras`; use `save_adapter` and `load_adapter` there.

## Refused

These are refused when the model is built, with this sentence:

"""


def render(numbers: dict[str, Any]) -> str:
    """The page, from the content of `families.json`."""
    scale = max(m["scale"] for by in numbers["families"].values() for m in by.values())
    columns = [
        "family", "kind", "keras-hub's tasks", "token_dim", "own embeddings", "real tokens",
        "padded", "gradient", "`.keras`", "backends",
    ]  # fmt: skip
    rows = [_row(name, numbers["families"][name]) for name in FAMILIES]
    refused = [f"- **{name}**: {message}\n" for name, (_, message) in REFUSED.items()]
    others = ", ".join(f"`{name}` ({reason})" for name, reason in NOT_TEXT.items())
    return (
        _HEAD.format(**numbers["sizes"], scale=scale)
        + table(columns, rows, rule="---")
        + _NOTES
        + "".join(refused)
        + f"\nBackbones that take other than text are refused as well: {others}.\n"
    )


def _row(name: str, by_backend: dict[str, Any]) -> list[str]:
    any_one = next(iter(by_backend.values()))

    def worst(key: str) -> str:
        return _number(max(m[key] for m in by_backend.values()))

    real = max(max([m["real_tokens"], *m["tasks"].values()]) for m in by_backend.values())
    same = any_one["token_dim"] == any_one["hidden_dim"]
    return [
        name,
        any_one["kind"],
        ", ".join(any_one["tasks"]) or "none",
        "" if same else f"{any_one['token_dim']}, states {any_one['hidden_dim']}",
        worst("own_embeddings"),
        _number(real),
        worst("right_padding"),
        _number(min(m["gradient"] for m in by_backend.values())),
        worst("round_trip"),
        ", ".join(NAMES[b] for b in BACKENDS if b in by_backend),
    ]


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}"
