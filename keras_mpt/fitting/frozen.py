"""What a model trains: its prompt and its head, and nothing of what is frozen for good.

A backbone is anybody's: its owner, or another model on it, may thaw it or give it LoRA. To freeze
it again would stop their training without a word, and to train it here would write adapters without
what was trained. So a model that is not as it was made neither trains nor is saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import keras


class HasFrozen(Protocol):
    """A `Fitting`."""

    # As `keras.Model` has them.
    trainable: bool
    trainable_variables: Any
    layers: Any

    @property
    def always_frozen(self) -> list[keras.layers.Layer]:
        """The layers that nothing trains."""


def check_frozen(model: HasFrozen) -> None:
    """Refuses to train or save a model whose frozen layers are not frozen, or have LoRA.

    Args:
        model: a `Fitting`.

    Raises:
        ValueError: one of their variables would be trained, or is one of LoRA's.
    """
    frozen = [v for layer in model.always_frozen for v in layer.variables]
    refuse_lora(frozen)
    known = {id(v) for v in frozen}
    thawed = [v.path for v in model.trainable_variables if id(v) in known]
    if thawed:
        raise ValueError(
            "`model.backbone` should be frozen: the prompt and the head alone are trained, and "
            "saved. Set `model.backbone.trainable = False`, or give another model that trains it "
            f"a copy of its own. Received: {len(thawed)} weights of it that would be trained, such "
            f"as {thawed[0]!r}"
        )


def refuse_lora(variables: Sequence[keras.Variable]) -> None:
    """Refuses a backbone with LoRA: neither prompts alone nor LoRA alone would be trained.

    Args:
        variables: the backbone's.

    Raises:
        ValueError: LoRA's are among them.
    """
    # Keras's names of them, in each of its layers: `lora_kernel_a`, `lora_embeddings_b`, …
    found = [v.path for v in variables if v.name.startswith("lora_")]
    if found:
        raise ValueError(
            "`backbone` should have no LoRA beside prompts: the prompt and the head alone are "
            "trained, and saved. Give a copy of the backbone without it; one that is saved and "
            "loaded again has what LoRA learned in its weights. Received: a backbone after "
            f"`enable_lora`, with {found[0]!r}"
        )


def freeze(layer: keras.layers.Layer) -> None:
    """Sets a layer and all below it to `trainable=False`."""
    layer.trainable = False
    # Keras on TensorFlow leaves out an assignment of what is there already, and with it the
    # layers below: those of an attention layer that was saved frozen come back trainable.
    for variable in layer.variables:
        variable.trainable = False


def set_trainable(model: HasFrozen, trainable: bool, of_layers: list[bool]) -> None:
    """Freezes and thaws a model as another one of its class was.

    Args:
        model: a `Fitting`.
        trainable: bool. The other's `trainable`.
        of_layers: list of bools. That of each of its `layers`.
    """
    if not trainable:
        model.trainable = False
    for layer, flag in zip(model.layers, of_layers, strict=False):
        if layer.trainable != flag:
            layer.trainable = flag
    for layer in model.always_frozen:
        freeze(layer)
