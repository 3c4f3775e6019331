"""Where a frozen backbone's graph is cut, so that embeddings can be fed instead of token ids.

One rule, with no branch per family: for each input named `token_ids` or `*_token_ids`, the layer
with weights that consumes it is the token embedding, and its output becomes a new input of the
rest of the graph. All token inputs are cut together; an encoder-decoder cut on one side only is no
longer connected. Variables are shared, nothing is copied. What a prompt could not enter without
changing what the backbone computes is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mpt._keras import calls_of_graph, keeping_history, without_new_calls
from keras_mpt.arrays import to_numpy
from keras_mpt.splicing.locks import lock_of
from keras_mpt.types import Backbone, Task, Tensors


@dataclasses.dataclass(frozen=True)
class TokenInput:
    """One token input of a backbone, and what enters the graph beside it.

    Attributes:
        name: "token_ids", "encoder_token_ids" or "decoder_token_ids".
        embedding: the layer that consumes the ids.
        mask_name: name of its padding mask input, or `None`.
        other_names: its other inputs with one entry per token, such as "segment_ids".
        position_names: those of `other_names` that hold positions, such as "position_ids".
        ids_used_later: whether the rest of the graph needs the ids too (ESM reads its mask off
            them).
    """

    name: str
    embedding: keras.layers.Layer
    mask_name: str | None
    other_names: tuple[str, ...]
    position_names: tuple[str, ...]
    ids_used_later: bool


@dataclasses.dataclass(frozen=True)
class CutGraph:
    """A backbone after its token embeddings.

    Attributes:
        token_inputs: the inputs that were cut, encoder before decoder.
        rest: `keras.Model` from a list of tensors to the backbone's outputs: an embedding
            (B, S, d) per token input, then the inputs named in `plain_names`.
        fed: the tensors of the backbone's own graph that these stand for.
        plain_names: names of the backbone's inputs that `rest` takes as they are.
    """

    token_inputs: tuple[TokenInput, ...]
    rest: keras.Model
    fed: tuple[keras.KerasTensor, ...]
    plain_names: tuple[str, ...]


def cut(backbone: Backbone) -> CutGraph:
    """Cuts a functional backbone after its token embeddings.

    Args:
        backbone: a keras-hub backbone, or any functional Keras model with inputs named by the rule.

    Returns:
        A `CutGraph` that shares the backbone's variables.

    Raises:
        ValueError: a backbone that no prompt can enter: one without token inputs, with inputs
            other than text, or whose tokens are looked up in several layers, or in one that gives
            more than the tokens' embeddings.
    """
    inputs = {tensor.name: tensor for tensor in backbone.inputs}
    token_names = sorted((n for n in inputs if _is_token_input(n)), key=_encoder_first)
    if not token_names:
        raise ValueError(
            "`backbone` should have an input named 'token_ids' or '*_token_ids'. Received: "
            f"backbone={backbone.name!r} with inputs {sorted(inputs)}"
        )
    not_text = sorted(name for name, tensor in inputs.items() if len(tensor.shape) > 2)
    if not_text:
        raise ValueError(
            "`backbone` should take text alone, in inputs of shape (batch_size, sequence_length): "
            "a prompt would move the places that images or sounds have among the tokens. Received: "
            f"{_described(backbone)} with inputs {not_text}"
        )
    token_inputs, embedded = [], []
    for name in token_names:
        node = _embedding_node(backbone, name, inputs[name])
        several = len(consumers(backbone, inputs[name])) > 1
        embedded.append(node.outputs[0])
        token_inputs.append(_describe(name, inputs, node.operation, several))
    dropped = {t.name for t in token_inputs if not t.ids_used_later}
    plain_names = tuple(name for name in inputs if name not in dropped)
    fed = [*embedded, *(inputs[name] for name in plain_names)]
    rest = part(backbone, fed, backbone.output, name=f"{backbone.name}_after_embeddings")
    return CutGraph(tuple(token_inputs), rest, tuple(fed), plain_names)


def tables_of(backbone: Backbone, name: str) -> list[keras.layers.Layer]:
    """The layers with weights that look an input up.

    Args:
        backbone: a functional backbone.
        name: string. The name of one of its inputs, such as "segment_ids".
    """
    tensor = next(tensor for tensor in backbone.inputs if tensor.name == name)
    return [node.operation for node in _lookups(backbone, tensor)]


@contextlib.contextmanager
def building_on(whole: keras.Model) -> Iterator[None]:
    """Around what is built of a graph's tensors: by one thread, and without a trace on the whole.

    A graph that was built is run as it is: no other can be built of its tensors afterwards.

    Args:
        whole: a functional model: a backbone, or a keras-hub task on one.
    """
    with lock_of(getattr(whole, "backbone", whole)), without_new_calls(whole):
        yield


def part(whole: keras.Model, inputs: list[Any], outputs: Tensors, **kwargs: Any) -> keras.Model:
    """Part of a functional graph as a model of its own, which leaves no trace on the whole.

    Args:
        whole: the functional model that has the graph.
        inputs: list of tensors of the graph, inputs or not.
        outputs: nest of tensors of the graph.
        **kwargs: `name` of `keras.Model`.

    Returns:
        A `keras.Model` that shares the graph's variables.

    Raises:
        ValueError: Keras's, where the outputs need other inputs than these.
    """
    with building_on(whole), keeping_history(inputs):
        return keras.Model(inputs, outputs, **kwargs)


def cut_head(task: Task) -> keras.Model:
    """The part of a keras-hub task after its backbone: from the backbone's outputs to its own.

    Args:
        task: a functional `keras_hub.models.Task`.

    Returns:
        A `keras.Model` from a list to the task's outputs: the backbone's flat outputs, then the
        inputs that the task has beside the backbone's, such as a `MaskedLM`'s "mask_positions".
    """
    known = {tensor.name for tensor in task.backbone.inputs}
    own = [tensor for tensor in task.inputs if tensor.name not in known]
    with building_on(task), keeping_history(own):
        # Through a layer, as Keras takes no graph whose output is its input: see
        # `_backbone_outputs`.
        output = keras.layers.Identity()(task.output)
        return keras.Model([*_backbone_outputs(task), *own], output, name=f"{task.name}_head")


def cut_features(task: Task) -> keras.Model:
    """As `cut_head`, but ending before the task's last layer: the features that it classifies."""
    last = next(n for n in calls_of_graph(task) if any(o is task.outputs[0] for o in n.outputs))
    with building_on(task):
        name = f"{task.name}_features"
        return keras.Model(_backbone_outputs(task), last.input_tensors[0], name=name)


def _backbone_outputs(task: Task) -> list[Any]:
    """Where a task's graph leaves the backbone.

    Most tasks call their backbone. RWKV7CausalLM takes the backbone's inputs and outputs for its
    own instead.
    """
    calls = [n for n in calls_of_graph(task) if n.operation is task.backbone]
    return list(calls[0].outputs if calls else task.backbone.outputs)


def consumers(model: keras.Model, tensor: keras.KerasTensor) -> list[Any]:
    """The calls in a functional model's graph that take a tensor."""
    return [
        node
        for node in calls_of_graph(model)
        if not node.is_input and any(t is tensor for t in node.input_tensors)
    ]


def _lookups(model: keras.Model, ids: keras.KerasTensor) -> list[Any]:
    """The calls of layers with weights that get `ids`, or integers made of them.

    A table that is looked up by `where(is_image, 0, ids)` is one of tokens as well. A mask made of
    ids is boolean, and ends the search.
    """
    found, to_follow = [], [ids]
    while to_follow:
        for node in consumers(model, to_follow.pop()):
            if getattr(node.operation, "weights", None):
                found += [node] if node not in found else []
            else:
                to_follow += [t for t in node.outputs if "int" in t.dtype]
    return found


def _embedding_node(backbone: Backbone, name: str, ids: keras.KerasTensor) -> Any:
    """The one call that embeds a token input."""
    lookups = _lookups(backbone, ids)
    if len(lookups) != 1 or [t is ids for t in lookups[0].input_tensors] != [True]:
        raise ValueError(
            f"`backbone` should look '{name}' up in exactly one layer with weights, as they come "
            "in: a prompt has no ids that another table could be asked for. Received: "
            f"{_described(backbone)}, which looks them up in "
            f"{sorted(n.operation.name for n in lookups)}"
        )
    node = lookups[0]
    if len(node.outputs) != 1 or len(node.outputs[0].shape) != 3:
        raise ValueError(
            f"`backbone` should embed '{name}' in a layer that gives embeddings of shape "
            "(batch_size, sequence_length, token_dim) alone: what else it makes of ids, a prompt "
            f"does not have. Received: {_described(backbone)}, whose '{node.operation.name}' has "
            f"{len(node.outputs)} outputs of shapes {[t.shape for t in node.outputs]}"
        )
    if _adds_positions(node.operation):
        raise ValueError(
            f"`backbone` should embed '{name}' without their positions, or in a "
            "keras_hub.layers.TokenAndPositionEmbedding, whose halves can be used apart. Received: "
            f"{_described(backbone)}, whose '{node.operation.name}' embeds a token in two ways at "
            "two places"
        )
    return node


def _adds_positions(embedding: keras.layers.Layer) -> bool:
    """Whether an unknown layer embeds one token differently from place to place."""
    import keras_hub

    known = (
        keras.layers.Embedding,
        keras_hub.layers.ReversibleEmbedding,
        keras_hub.layers.TokenAndPositionEmbedding,
    )
    if type(embedding) in known:
        return False
    embedded = to_numpy(embedding(np.array([[1, 1, 2]], "int32")))[0]
    return not np.array_equal(embedded[0], embedded[1])


def _described(backbone: Backbone) -> str:
    return f"backbone=<{type(backbone).__name__}>"


def _is_token_input(name: str) -> bool:
    return name == "token_ids" or name.endswith("_token_ids")


def _encoder_first(name: str) -> tuple[bool, str]:
    return name.startswith("decoder"), name


def _describe(
    name: str, inputs: dict[str, Any], embedding: keras.layers.Layer, used_later: bool
) -> TokenInput:
    """Finds the inputs that go with a token input: those of its prefix, with one entry a token."""
    prefix = name.removesuffix("token_ids")
    mask_name = prefix + "padding_mask"
    others = tuple(
        other
        for other, tensor in inputs.items()
        if other not in (name, mask_name)
        and not _is_token_input(other)
        and other.startswith(prefix)
        and tuple(tensor.shape[1:]) == (None,)
    )
    return TokenInput(
        name=name,
        embedding=embedding,
        mask_name=mask_name if mask_name in inputs else None,
        other_names=others,
        position_names=tuple(n for n in others if n.endswith("position_ids")),
        ids_used_later=used_later,
    )
