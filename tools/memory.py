"""Peak memory of a step, beside what `keras_mpt.estimate_memory` says, each in a fresh process.

    KERAS_BACKEND=jax python -m tools.memory [SHAPE ...]

What is measured is the highest resident memory while a model is made and trained for three steps,
less what the process held once its frameworks were there. It ends with an error where an estimate
is off by more than a fifth.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks.memory import _peak, _reset_peak

# Family, layers, width, heads, vocabulary; L, tasks; B, S.
SHAPES: dict[str, tuple[Any, ...]] = {
    "GPT-2, 6 x 512, B 16, S 128": ("GPT2", 6, 512, 8, 8000, 20, 4, 16, 128),
    "GPT-2, 12 x 768, B 8, S 128": ("GPT2", 12, 768, 12, 50257, 20, 4, 8, 128),
    "GPT-2, 6 x 512, B 8, S 384": ("GPT2", 6, 512, 8, 8000, 100, 4, 8, 384),
    "Llama, 12 x 768, B 16, S 64": ("Llama", 12, 768, 12, 32000, 20, 4, 16, 64),
    "Llama, 8 x 1024, B 8, S 256": ("Llama", 8, 1024, 16, 32000, 20, 4, 8, 256),
    "BERT, 12 x 768, B 16, S 128": ("Bert", 12, 768, 12, 30522, 20, 4, 16, 128),
    "BERT, 6 x 384, B 64, S 128": ("Bert", 6, 384, 12, 30522, 20, 4, 64, 128),
}
MOST = 0.2


def main(names: list[str]) -> int:
    """Measures shapes, or all that there are."""
    wrong = 0
    for name in names or SHAPES:
        command = [sys.executable, "-m", "tools.memory", "--child", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        measured, estimate, *parts = map(int, done.stdout.split("\n")[-2].split())
        off = estimate / measured - 1
        wrong += abs(off) > MOST
        sizes = " ".join(f"{part >> 20}" for part in parts)
        print(
            f"{name}: {measured >> 20} MiB, said {estimate >> 20} ({off:+.0%}; {sizes})", flush=True
        )
    return int(wrong > 0)


def child(name: str) -> None:
    """Makes and trains one shape."""
    import keras
    import keras_hub
    import numpy as np

    import keras_mpt

    family, layers, width, heads, vocabulary, virtual, tasks, rows, tokens = SHAPES[name]
    given = {"vocabulary_size": vocabulary, "num_layers": layers, "hidden_dim": width}
    given["intermediate_dim"] = 4 * width if family != "Llama" else width * 11 // 4
    if family == "Llama":
        given |= {"num_query_heads": heads, "num_key_value_heads": heads // 2}
    else:
        given |= {"num_heads": heads, "max_sequence_length": 512, "dropout": 0.0}
    kind = "SEQ_CLS" if family == "Bert" else "CAUSAL_LM"
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=kind, num_virtual_tokens=virtual, num_tasks=tasks
    )
    rng = np.random.default_rng(0)
    ids = rng.integers(5, vocabulary, (3 * rows, tokens)).astype("int32")
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    x["task_ids"] = np.arange(len(ids), dtype="int32") % tasks
    y = np.roll(ids, -1, 1)
    if kind == "SEQ_CLS":
        x["segment_ids"], y = ids * 0, x["task_ids"] % 2
    keras.ops.convert_to_numpy(keras.ops.ones((8, 8)) @ keras.ops.ones((8, 8)))  # A first run's.
    before = _reset_peak()
    backbone = getattr(keras_hub.models, f"{family}Backbone")(**given)
    classes = {"num_classes": 2} if kind == "SEQ_CLS" else {}
    model = keras_mpt.prompt_tune(backbone, config, **classes)
    model.fit(x, y, batch_size=rows, verbose=0)
    peak = _peak() - before
    said = keras_mpt.estimate_memory(backbone, config, rows, tokens)
    print(peak, said.total, said.weights, said.prompts, said.activations, said.logits)


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[2])
    else:
        sys.exit(main(sys.argv[1:]))
