"""A model's forward pass as a function of inputs by name, for others to trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras_mpt.heads.head import NoHead
from keras_mpt.types import Tensor

ByName = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def plain_call(model: Any) -> ByName:
    """The forward pass: nothing is checked, nothing drops out, and each row has its own prompt.

    A causal model's shared prompts are left out: which of them a batch needs, no runtime but the
    backend's own could be told. The outputs are the same.

    Args:
        model: a prompt-tuned model.

    Returns:
        A function of a dict of int32 tensors that gives a dict of outputs: a backbone's by their
        own names, else "logits".
    """
    lone = "sequence_output" if isinstance(model.head, NoHead) else "logits"

    def forward(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs = dict(inputs)
        outputs, _ = model.run_backbone(inputs, training=False)
        outputs = model.after_backbone(outputs, inputs, training=False)
        return dict(sorted(outputs.items())) if isinstance(outputs, dict) else {lone: outputs}

    return forward


def output_names(model: Any) -> list[str]:
    """The names of `plain_call`'s outputs, in their order.

    Args:
        model: a prompt-tuned model.
    """
    if not isinstance(model.head, NoHead):
        return ["logits"]
    output = model.backbone.output
    return sorted(output) if isinstance(output, dict) else ["sequence_output"]
