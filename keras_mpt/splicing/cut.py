"""Where a frozen backbone's graph is cut, so that embeddings can be fed instead of token ids.

One rule, with no branch per family: for each input named `token_ids` or `*_token_ids`, the layer
with weights that consumes it is the token embedding, and its output becomes a new input of the
rest of the graph. All token inputs are cut together; an encoder-decoder cut on one side only is no
longer connected. Variables are shared, nothing is copied.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class TokenInput:
    """One token input of a backbone, and what enters the graph beside it.

    Attributes:
        name: "token_ids", "encoder_token_ids" or "decoder_token_ids".
        embedding: the layer that consumes the ids.
        mask_name: name of its padding mask input, or `None`.
        other_names: its other inputs with one entry per token, such as "segment_ids".
        ids_used_later: whether the rest of the graph needs the ids too (ESM reads its mask off
            them).
    """

    name: str
    embedding: Any
    mask_name: str | None
    other_names: tuple[str, ...]
    ids_used_later: bool


@dataclasses.dataclass(frozen=True)
class CutGraph:
    """A backbone behind its token embeddings.

    Attributes:
        token_inputs: the inputs that were cut, encoder before decoder.
        rest: `keras.Model` from a list of tensors to the backbone's outputs: an embedding
            (B, S, d) per token input, then the inputs named in `plain_names`.
        plain_names: names of the backbone's inputs that `rest` takes as they are.
    """

    token_inputs: tuple[TokenInput, ...]
    rest: Any
    plain_names: tuple[str, ...]


def cut(backbone: Any) -> CutGraph:
    """Cuts a functional backbone behind its token embeddings.

    Args:
        backbone: a keras-hub backbone, or any functional Keras model with inputs named by the rule.

    Returns:
        A `CutGraph` that shares the backbone's variables.

    Raises:
        ValueError: no token input, or none or several layers with weights that consume one.
    """
    inputs = {tensor.name: tensor for tensor in backbone.inputs}
    token_names = sorted((n for n in inputs if _is_token_input(n)), key=_encoder_first)
    if not token_names:
        raise ValueError(
            "`backbone` should have an input named 'token_ids' or '*_token_ids'. Received: "
            f"backbone={backbone.name!r} with inputs {sorted(inputs)}"
        )
    token_inputs, embedded = [], []
    for name in token_names:
        consumers = _consumers(backbone, inputs[name])
        with_weights = [n for n in consumers if getattr(n.operation, "weights", None)]
        if len(with_weights) != 1:
            raise ValueError(
                f"`backbone` should embed '{name}' in exactly one layer with weights; a prompt has "
                f"no token ids, so it cannot enter elsewhere. Received: "
                f"backbone={backbone.name!r}, which uses '{name}' in "
                f"{[n.operation.name for n in with_weights]}"
            )
        embedded.append(with_weights[0].outputs[0])
        token_inputs.append(_describe(name, inputs, with_weights[0].operation, len(consumers) > 1))
    dropped = {t.name for t in token_inputs if not t.ids_used_later}
    plain_names = tuple(name for name in inputs if name not in dropped)
    # Keras notes on the inputs that they belong to the new model; a functional model that is no
    # subclass then cannot be saved.
    histories = [(tensor, tensor._keras_history) for tensor in backbone.inputs]
    rest = keras.Model(
        [*embedded, *(inputs[name] for name in plain_names)],
        backbone.output,
        name=f"{backbone.name}_behind_embeddings",
    )
    for tensor, history in histories:
        tensor._keras_history = history
    return CutGraph(tuple(token_inputs), rest, plain_names)


def cut_head(task: Any) -> Any:
    """The part of a keras-hub task behind its backbone: from the backbone's outputs to its own.

    Args:
        task: a functional `keras_hub.models.Task`.

    Returns:
        A `keras.Model` from the list of the backbone's flat outputs to the task's outputs.
    """
    node = next(n for n in _nodes(task) if n.operation is task.backbone)
    return keras.Model(list(node.outputs), task.output, name=f"{task.name}_head")


def cut_features(task: Any) -> Any:
    """As `cut_head`, but ending before the task's last layer: the features that it classifies."""
    node = next(n for n in _nodes(task) if n.operation is task.backbone)
    last = next(n for n in _nodes(task) if any(o is task.outputs[0] for o in n.outputs))
    return keras.Model(list(node.outputs), last.input_tensors[0], name=f"{task.name}_features")


def _nodes(model: Any) -> list[Any]:
    """The calls in a functional model's graph. Keras has no public way to list them."""
    return [node for nodes in model._nodes_by_depth.values() for node in nodes]


def _consumers(model: Any, tensor: Any) -> list[Any]:
    return [
        node
        for node in _nodes(model)
        if not node.is_input and any(t is tensor for t in node.input_tensors)
    ]


def _is_token_input(name: str) -> bool:
    return name == "token_ids" or name.endswith("_token_ids")


def _encoder_first(name: str) -> tuple[bool, str]:
    return name.startswith("decoder"), name


def _describe(name: str, inputs: dict[str, Any], embedding: Any, used_later: bool) -> TokenInput:
    """Finds the inputs that go with a token input: those of its prefix, with one entry a token."""
    prefix = name.removesuffix("token_ids")
    mask_name = prefix + "padding_mask"
    others = tuple(
        other
        for other, tensor in inputs.items()
        if other not in (name, mask_name)
        and not _is_token_input(other)
        and other.startswith(prefix)
        and len(tensor.shape) == 2
    )
    return TokenInput(
        name=name,
        embedding=embedding,
        mask_name=mask_name if mask_name in inputs else None,
        other_names=others,
        ids_used_later=used_later,
    )
