"""How large the house is to someone inside: classes, public names, bare `Any`s, changes of file.

`python -m tools.house [CHECKOUT]` prints a small table. A change of file is counted each time that
a call, or a call or a return, leads from one file of the package into another one, on PyTorch, on a
causal model of two tasks.
"""

import ast
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
CHECKOUT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
sys.path.insert(0, str(CHECKOUT))

import keras_hub  # noqa: E402
import numpy as np  # noqa: E402

import keras_mpt  # noqa: E402

PACKAGE = CHECKOUT / "keras_mpt"


def annotations() -> tuple[int, int]:
    """How many annotations there are, and how many of them are a bare `Any`."""
    found: list[ast.expr] = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                a = node.args
                every = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
                found += [arg.annotation for arg in every if arg and arg.annotation]
                found += [node.returns] if node.returns else []
            elif isinstance(node, ast.AnnAssign):
                found.append(node.annotation)
    return len(found), sum(isinstance(a, ast.Name) and a.id == "Any" for a in found)


def own_classes(model: Any) -> list[type]:
    """The classes of this package that a model's class stands on, itself included."""
    return [c for c in type(model).__mro__ if c.__module__.startswith("keras_mpt")]


def public_names(classes: list[type]) -> set[str]:
    """What these classes define without a leading underscore."""
    names = {n for c in classes for n in (*vars(c), *vars(c).get("__annotations__", {}))}
    return {n for n in names if not n.startswith("_")}


def file_changes(function: Callable[[], Any]) -> tuple[int, int]:
    """How often a call leads into another file of the package; how often calls and returns do."""
    calls: list[str] = []
    stack: list[str] = []
    both: list[str] = []

    def trace(frame: Any, event: str, arg: Any) -> None:
        name = frame.f_code.co_filename
        if not name.startswith(str(PACKAGE)):
            return
        if event == "call":
            stack.append(name)
            calls.append(name)
            both.append(name)
        elif event == "return" and stack:
            stack.pop()
            if stack:
                both.append(stack[-1])

    sys.setprofile(trace)
    try:
        function()
    finally:
        sys.setprofile(None)

    def changes(names: list[str]) -> int:
        return sum(a != b for a, b in zip(names, names[1:], strict=False))

    return changes(calls), changes(both)


def main() -> None:
    """Prints the table."""
    backbone = keras_hub.models.GPT2Backbone(50, 2, 2, 16, 32, max_sequence_length=32)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, num_tasks=2
    )
    model = keras_mpt.prompt_tune(backbone, config)
    model.compile(sampler="greedy")
    ids = np.arange(2, 26).reshape(4, 6).astype("int32")
    mask = np.ones_like(ids)
    x = {"token_ids": ids, "padding_mask": mask, "task_ids": np.array([0, 1, 1, 0])}
    room = {**x, "padding_mask": np.where(np.arange(6) < 4, mask, 0)}
    classes = own_classes(model)
    total, bare = annotations()
    print(f"classes under {type(model).__name__}: {len(classes)}: {[c.__name__ for c in classes]}")
    print(f"their public names: {len(public_names(classes))}")
    print(f"annotations: {total}, of these a bare Any: {bare} ({bare / total:.0%})")
    asked: dict[str, Callable[[], Any]] = {
        "model(x)": lambda: model(x),
        "fit": lambda: model.fit(x, ids, batch_size=4, verbose=0),
        "generate": lambda: model.generate(room, stop_token_ids=None),
        "score": lambda: model.score(x, [[5], [6, 7]]),
    }
    for name, function in asked.items():
        function()  # What is made once is not counted.
        calls, both = file_changes(function)
        print(f"changes of file in {name}: {calls} by calls, {both} by calls and returns")


if __name__ == "__main__":
    main()
