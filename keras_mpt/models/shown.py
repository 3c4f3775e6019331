"""A prompt-tuned model in words: what `print` shows of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

# Of tasks' names, so many are shown.
_MOST_NAMES = 5


def model_in_words(model: Any) -> str:
    """The model's class, base, prompt, tasks, head and trained numbers, in a line each."""
    config, classes = model.config, model.head.num_classes
    of, length = type(model.backbone).__name__, config.num_virtual_tokens
    lines = [
        f"{type(model).__name__}(",
        f"  backbone: {of}, {_numbers(model.backbone.weights):,} numbers, frozen",
        f"  prompt: {length} virtual tokens of width {config.token_dim}"
        + (f", {config.prompt_position!r}" if config.prompt_position else ""),
    ]
    names = getattr(config, "names", None)
    if names is not None:
        lines.append(f"  {len(names)} tasks of rank {config.num_ranks}: {_some(map(repr, names))}")
    if classes is not None:
        own = classes if isinstance(classes, list) else [classes]
        each = "a head per task" if isinstance(classes, list) else "one head"
        lines.append(f"  {each}, classes: {_some(map(str, own))}")
    return "\n".join([*lines, f"  trained: {_share(model)}", ")"])


def model_in_a_line(model: Any) -> str:
    """Its class, name, base, tasks and trained numbers."""
    if not getattr(model, "built", False):  # Within its constructor, of an error's message.
        return object.__repr__(model)
    tasks = model.prompt.tasks
    of = "one prompt" if tasks is None else f"{tasks} tasks" if tasks > 1 else "1 task"
    return (
        f"<{type(model).__name__} {model.name!r} on {type(model.backbone).__name__}, {of}, "
        f"{model.parameter_count():,} numbers trained>"
    )


def summary(
    model: Any,
    line_length: int | None = None,
    positions: Any = None,
    print_fn: Any = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Any = None,
) -> None:
    """`keras.Model.summary`, with a line more where tasks are frozen: they lie amid variables."""
    keras.Model.summary(
        model, line_length, positions, print_fn, expand_nested, show_trainable, layer_range
    )
    trained, of = model.parameter_count(), _numbers(model.trainable_variables)
    if trained != of:
        (print_fn or print)(
            f" Of the trainable params {of - trained:,} are frozen tasks' and stay as they are: "
            f"{trained:,} are trained."
        )


def print_trainable_parameters(model: Any) -> None:
    """Prints how many numbers are trained, of how many, as PEFT's method of this name.

    Example:
        ```python
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
        keras_mpt.prompt_tune(backbone, config).print_trainable_parameters()
        ```

    Source: PEFT `PeftModel.print_trainable_parameters`.
    """
    print(f"trained: {_share(model)}")


def _some(words: Iterable[str]) -> str:
    """The first of several words."""
    first = list(itertools.islice(words, _MOST_NAMES + 1))
    return ", ".join([*first[:_MOST_NAMES], *(["…"] if len(first) > _MOST_NAMES else [])])


def _share(model: Any) -> str:
    trained, all_of = model.parameter_count(), _numbers(model.weights)
    return f"{trained:,} of {all_of:,} numbers ({100 * trained / all_of:.2g}%)"


def _numbers(variables: Any) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)
