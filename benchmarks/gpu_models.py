"""What one backend's process does for `benchmarks.gpu`: models, parity, times."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

import keras_mpt
from benchmarks import cases, steps
from benchmarks.cases import Case
from benchmarks.generation import NEW, our_tokens, peft_tokens
from benchmarks.part import Results, said
from benchmarks.timing import paired
from tools.machine import gpu, processor, versions

IS_JAX = keras.backend.backend() == "jax"
PACKAGES = ("keras", "keras-hub", "jax", "torch", "peft", "transformers", "numpy")
DTYPE = "bfloat16"
# Rounds that count: as many as take so many seconds, between the two numbers.
SECONDS, LEAST, MOST = 8.0, 3, 9


@dataclasses.dataclass
class Opened:
    """A shape's weights, in PEFT's framework and in keras-hub's.

    Attributes:
        base: transformers' model.
        backbone: keras-hub's.
        parity: what `parity` found of the shape.
    """

    base: Any
    backbone: Any
    parity: Results = dataclasses.field(default_factory=dict)


class Models:
    """A backend's models, each shape's kept from case to case.

    Args:
        folder: where weights are put on their way from PyTorch to keras-hub.
        quick: whether to repeat little.
    """

    def __init__(self, folder: Path, quick: bool) -> None:
        self.folder, self.quick = folder, quick
        self.new = 4 if quick else NEW
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._opened: dict[str, Opened] = {}

    def about(self) -> Results:
        """The device and the packages; what keeps this backend from being measured."""
        if not self.quick and _place() == "cpu":
            sentence = "this backend finds no GPU here; to rehearse, give --quick"
            return {"failed": {"all": sentence}}
        found = [name for name in PACKAGES if find_spec(name.replace("-", "_"))]
        return {"device": gpu() or processor(), "packages": versions(found)}

    def measured(self, kind: str, case: Case) -> Results:
        """What is asked for, of a case: "open", "training" or "generation"."""
        if kind == "open":
            self._opened[case.shape] = self.opened(case, DTYPE)
            self._opened[case.shape].parity = self.parity(case)
            _free()
            return {}
        opened = self._opened[case.shape]
        wrong = _wrong(opened.parity, kind)
        if wrong:
            return {"failed": {"all": wrong}, **opened.parity}
        found = (self.training if kind == "training" else self.generation)(case, opened)
        _free()
        return {**found, **opened.parity}

    def is_sound(self) -> bool:
        """Whether the GPU can be used yet after an error; and lets go of what that has left."""
        try:
            _free()
            steps.wait_for_gpu()
        except RuntimeError:
            return False
        return True

    def opened(self, case: Case, dtype: str) -> Opened:
        """Random weights, made in PyTorch on the device and read by keras-hub's converter."""
        folder = self.folder / "weights"
        base = cases.write_base(case, folder, dtype, self.device)
        backbone = cases.open_backbone(case, folder, dtype)
        shutil.rmtree(folder)
        return Opened(base, backbone)

    def pair(self, case: Case, opened: Opened) -> tuple[Any, Any]:
        """PEFT's model and ours, with the same prompts, on the device both."""
        theirs = cases.wrapped(case, opened.base).to(self.device)
        folder = self.folder / "prompts"
        cases.write_adapter(theirs, folder)
        cases.check_gradients(theirs)
        ours = keras_mpt.load_adapter(opened.backbone, folder / "adapter")
        places = {_place_of(v) for v in ours.weights}
        if places != {_place()} or theirs.device.type != self.device:
            raise AssertionError(f"all should be on {self.device}: ours is on {places}")
        return theirs, ours

    def parity(self, case: Case) -> Results:
        """Logits and tokens in float32, of two layers in the shape's own width."""
        # Of more rows than tasks, so that prompts are shared as in what is timed.
        sizes = {"depth": min(2, case.layers), "rows": 8, "tokens": 16, "distinct": 4}
        few, new = dataclasses.replace(case, **sizes, one_word=False), 8
        with _exact():
            theirs, ours = self.pair(few, self.opened(few, "float32"))
            data = cases.batch(few)
            error = steps.difference(few, ours, theirs, data)
            ours.compile(sampler="greedy")
            made = our_tokens(ours, data.ids, new, task_ids=data.task_ids)
            same = float((peft_tokens(few, theirs, data, new) == made).mean())
        return {"difference": error, "same float32": same}

    def training(self, case: Case, opened: Opened) -> Results:
        """A step of training."""
        theirs, ours = self.pair(case, opened)
        data = cases.batch(case)
        makers: dict[str, Callable[[], Any]] = {
            "peft": lambda: steps.peft_step(case, theirs, data),
            "ours": lambda: steps.our_step(case, ours, data),
        }
        runs: dict[str, Callable[[], Any]] = {}
        losses, failed = {}, {}
        for name, make in makers.items():
            try:
                step = make()
                losses[name] = float(step())
                runs[name] = step
            except Exception as error:  # Such as no room: the other side is measured alone.
                failed[name] = said(error)
            _free()
        found: Results = {"losses": losses, "attention": _attention(theirs)}
        found["bytes"] = {
            name: _peak(run) for name, run in runs.items() if name == "peft" or not IS_JAX
        }
        if failed:
            found["failed"] = failed
        return {**found, "seconds": self.seconds(runs)}

    def generation(self, case: Case, opened: Opened) -> Results:
        """New tokens, greedily."""
        theirs, ours = self.pair(case, opened)
        data = cases.batch(case)
        theirs.eval()
        for config in (theirs.config, theirs.generation_config):
            config.use_cache = True  # Training has no use for it.
        ours.compile(sampler="greedy")
        runs: dict[str, Callable[[], np.ndarray]] = {
            "peft": lambda: peft_tokens(case, theirs, data, self.new),
            "ours": lambda: our_tokens(ours, data.ids, self.new, task_ids=data.task_ids),
        }
        made = {name: run() for name, run in runs.items()}
        same = float((made["peft"] == made["ours"]).mean())
        return {
            "rows": case.rows, "new": self.new, "same": same, "attention": _attention(theirs),
            "seconds": self.seconds(runs),
        }  # fmt: skip

    def seconds(self, runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
        """Times in turn, after a round that does not count."""
        began = time.perf_counter()
        for run in runs.values():
            run()
        took = time.perf_counter() - began
        repeats = 2 if self.quick else max(LEAST, min(MOST, int(SECONDS / max(took, 1e-3))))
        return paired(runs, repeats=repeats, warm_ups=0)


def _wrong(parity: Results, kind: str) -> str:
    """What the shape's outputs in float32 have against timing it, or an empty string."""
    if not parity["difference"] <= cases.TOLERANCE:
        return f"logits in float32 differ by {parity['difference']:.0e} of the largest"
    if kind == "generation" and parity["same float32"] < 1:
        return f"only {parity['same float32']:.0%} of the tokens in float32 are PEFT's"
    return ""


@contextlib.contextmanager
def _exact() -> Iterator[None]:
    """Within it float32 is float32, not the 10 bits that GPUs may take for it."""
    torch.set_float32_matmul_precision("highest")
    if not IS_JAX:
        yield
        return
    import jax

    with jax.default_matmul_precision("highest"):
        yield


def _peak(run: Callable[[], Any]) -> int | None:
    """Bytes of PyTorch's that a run needs beside what is there before it."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return int(torch.cuda.max_memory_allocated() - before)


def _place() -> str:
    """Where this backend's variables should be."""
    if not IS_JAX:
        return "cuda" if torch.cuda.is_available() else "cpu"
    import jax

    return str(jax.default_backend())


def _place_of(variable: keras.Variable) -> str:
    value = variable.value
    return next(iter(value.devices())).platform if IS_JAX else value.device.type


def _attention(theirs: Any) -> str:
    return str(theirs.config._attn_implementation)


def _free() -> None:
    """Gives back what nobody holds any more; the other process needs it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
