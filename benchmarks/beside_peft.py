"""keras_mpt and PEFT side by side: the same weights, batches and cores, in turn, in one process.

    make bench                                            # every backend, writes docs/benchmarks/
    KERAS_BACKEND=jax python -m benchmarks.beside_peft    # one backend, prints its numbers as JSON

Each case first compares outputs, then runs both sides in turn, warm-ups left out. A ratio is PEFT's
time divided by ours, pair by pair: above 1 ours is faster. The exit status says whether outputs
agreed, never how fast anything was.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras
import keras_hub
import numpy as np
import peft
import torch
import transformers
from keras import ops

import keras_mpt

TASKS, REPEATS, WARM_UPS, TOLERANCE = 4, 7, 2, 1e-4


class Case:
    """Two models of the same weights, and one batch.

    Args:
        name: string.
        base: a model of transformers.
        task_type: PEFT's.
        backbone: name of keras-hub's class.
        sizes: three ints: L, B and S.
    """

    def __init__(
        self,
        name: str,
        base: Any,
        task_type: str,
        backbone: str,
        sizes: tuple[int, ...],
    ) -> None:
        length, rows, tokens = sizes
        self.name = f"{name}, L {length}, B {rows}, S {tokens}"
        self.length, self.rows = length, rows
        vocabulary = base.config.vocab_size
        with tempfile.TemporaryDirectory() as folder:
            base.save_pretrained(f"{folder}/base")
            config = peft.MultitaskPromptTuningConfig(
                task_type=task_type, num_virtual_tokens=length, num_tasks=TASKS
            )
            self.peft = peft.get_peft_model(base, config)
            with torch.no_grad():
                for weight in self.peft.prompt_encoder.parameters():
                    weight.normal_(std=0.3)
            self.peft.save_pretrained(f"{folder}/adapter")
            own = getattr(keras_hub.models, backbone).from_preset(f"{folder}/base", dropout=0.0)
            self.ours = keras_mpt.load_adapter(own, f"{folder}/adapter")
        rng = np.random.default_rng(0)
        self.ids = rng.integers(5, vocabulary, (rows, tokens))
        self.task_ids = rng.integers(0, TASKS, rows)
        self.labels = np.roll(self.ids, -1, 1) if task_type == "CAUSAL_LM" else self.task_ids % 2
        self.x = {"token_ids": self.ids, "padding_mask": np.ones_like(self.ids)}
        self.x["task_ids"] = self.task_ids
        self.torch_x = {
            "input_ids": torch.tensor(self.ids),
            "attention_mask": torch.ones(rows, tokens, dtype=torch.long),
            "task_ids": torch.tensor(self.task_ids),
        }

    def difference(self) -> float:
        """Of logits at user positions, relative to the largest."""
        self.peft.eval()
        with torch.no_grad():
            theirs = self.peft(**self.torch_x).logits.numpy()
        theirs = theirs if theirs.ndim == 2 else theirs[:, self.length :]
        ours = ops.convert_to_numpy(self.ours(self.x))
        return float(np.abs(ours - theirs).max() / np.abs(theirs).max())

    def training(self) -> dict[str, Any]:
        """One step of Adam on P, the factors and the head."""
        self.peft.train()
        trained = [p for p in self.peft.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, 1e-4)
        labels = torch.tensor(self.labels)

        def theirs() -> None:
            logits = self.peft(**self.torch_x).logits
            logits = logits if logits.ndim == 2 else logits[:, self.length :]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        self.ours.compile(optimizer=keras.optimizers.Adam(1e-4))
        return timed(theirs, lambda: self.ours.train_on_batch(self.x, self.labels))

    def generation(self, new: int) -> dict[str, Any]:
        """Greedy text, after checking that it is the same."""
        self.peft.eval()
        room = np.zeros((self.rows, new), "int64")
        x = {
            "token_ids": np.concatenate([self.ids, room], 1),
            "padding_mask": np.concatenate([np.ones_like(self.ids), room], 1),
        }
        self.ours.compile(sampler="greedy")

        def theirs() -> Any:
            made = self.peft.generate(
                **self.torch_x, max_new_tokens=new, min_new_tokens=new, do_sample=False
            )
            return made.numpy()[:, -new:]

        def ours() -> Any:
            made = self.ours.generate(x, task_ids=self.task_ids, stop_token_ids=None)
            return made["token_ids"][:, -new:]

        same = float((theirs() == ours()).mean())
        return {**timed(theirs, ours), "same tokens": same}


def timed(theirs: Callable[[], Any], ours: Callable[[], Any]) -> dict[str, Any]:
    """Medians in seconds, and the ratio of each pair: its median and its spread."""
    times: dict[str, list[float]] = {"peft": [], "ours": []}
    for i in range(WARM_UPS + REPEATS):
        for name, run in (("peft", theirs), ("ours", ours)):
            began = time.perf_counter()
            run()
            if i >= WARM_UPS:
                times[name].append(time.perf_counter() - began)
    ratios = sorted(a / b for a, b in zip(times["peft"], times["ours"], strict=True))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {**medians, "ratio": float(np.median(ratios)), "spread": [ratios[0], ratios[-1]]}


def gpt2(*sizes: int) -> Case:
    """A GPT-2 of 6 layers, 512 wide, as training and generation meet it."""
    config = transformers.GPT2Config(
        vocab_size=8000, n_positions=512, n_embd=512, n_layer=6, n_head=8, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    base = transformers.GPT2LMHeadModel(config)
    return Case("GPT-2", base, "CAUSAL_LM", "GPT2Backbone", sizes)


def encoder(*sizes: int) -> Case:
    """A BERT of MiniLM's shape: 6 layers, 384 wide."""
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=384, intermediate_size=1536, num_hidden_layers=6,
        num_attention_heads=12, hidden_act="gelu_new", hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, num_labels=2,
    )  # fmt: skip
    base = transformers.BertForSequenceClassification(config)
    return Case("MiniLM shape", base, "SEQ_CLS", "BertBackbone", sizes)


def main() -> int:
    """Runs all cases on this backend and prints the results."""
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    rows = []
    for make, jobs in (
        (lambda: gpt2(100, 16, 64), ("training",)),
        (lambda: gpt2(100, 1, 32), ("generation",)),
        (lambda: gpt2(100, 16, 32), ("generation",)),
        (lambda: encoder(20, 32, 48), ("training",)),
    ):
        case = make()
        difference = case.difference()
        for job in jobs:
            measured = case.training() if job == "training" else case.generation(new=32)
            row = {"case": f"{case.name}: {job}", "difference": difference, **measured}
            print(json.dumps(row), file=sys.stderr, flush=True)
            rows.append(row)
    settings = {"repeats": REPEATS, "warm_ups": WARM_UPS, "tasks": TASKS}
    print(json.dumps({"backend": keras.backend.backend(), **settings, "rows": rows}))
    agreed = all(r["difference"] <= TOLERANCE and r.get("same tokens", 1) == 1 for r in rows)
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
