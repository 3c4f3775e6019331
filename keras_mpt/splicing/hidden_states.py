"""The hidden states between a frozen backbone's layers, beside its own outputs."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt._keras import calls_of_graph
from keras_mpt.splicing.cut import CutGraph, part
from keras_mpt.types import Backbone, Tensors


class HiddenStates:
    """A graph that also gives what its layers give.

    A backbone keeps its layers in lists (`transformer_layers`, `decoder_layers`, …), or calls some
    of one class again and again; what each call of such a layer gives is a state. In an
    encoder-decoder these are the decoder's. The last one is the backbone's own output, after its
    last normalization: what a head reads.

    Args:
        backbone: a functional backbone.
        graph: its graph, cut.
        last: tensor of the backbone's graph, its own output.
    """

    def __init__(self, backbone: Backbone, graph: CutGraph, last: keras.KerasTensor) -> None:
        self._backbone, self._graph = backbone, graph
        self._tensors = [*_layer_outputs(backbone, graph, last)[:-1], last]
        self._graphs: dict[tuple[int, ...], Any] = {}

    def __len__(self) -> int:
        return len(self._tensors)

    def __call__(
        self, inputs: Tensors, layers: tuple[int, ...], training: bool | None = None
    ) -> Any:
        """The graph's outputs, and the states of some layers.

        Args:
            inputs: as `CutGraph.rest` takes them.
            layers: tuple of ints in [-N, N) for N states.
            training: bool. Defaults to `None`.

        Returns:
            `(outputs, states)`, the latter a list.
        """
        if not layers:
            return self._graph.rest(inputs, training=training), []
        flat = keras.tree.flatten(self._backbone.output)
        states = [self._tensors[i] for i in layers]
        # Each once: Keras loses an output that is given twice, as the last state is.
        wanted = {id(tensor): tensor for tensor in (*flat, *states)}
        if layers not in self._graphs:
            fed = list(self._graph.fed)
            self._graphs[layers] = part(self._backbone, fed, list(wanted.values()))
        outputs = keras.tree.flatten(self._graphs[layers](inputs, training=training))
        made = dict(zip(wanted, outputs, strict=True))
        given = keras.tree.pack_sequence_as(self._backbone.output, [made[id(t)] for t in flat])
        return given, [made[id(t)] for t in states]


def _layer_outputs(backbone: Backbone, graph: CutGraph, last: keras.KerasTensor) -> list[Any]:
    """What each call of one of the backbone's layers gives, first call first."""
    embeddings = [token_input.embedding for token_input in graph.token_inputs]
    calls = [
        node
        for node in calls_of_graph(backbone)
        if isinstance(node.operation, keras.layers.Layer) and node.operation not in embeddings
    ]
    layers = _listed_layers(backbone)
    found = [node for node in calls if any(node.operation is layer for layer in layers)]
    calls = [node for node in calls if node.outputs[0].shape == last.shape]
    if not found and calls:  # ALBERT lists none: those of the largest layer's class.
        largest = max((node.operation for node in calls), key=lambda op: len(op.weights))
        found = [node for node in calls if type(node.operation) is type(largest)]
    return [node.outputs[0] for node in found]


def _listed_layers(backbone: Backbone) -> list[Any]:
    """The layers in a backbone's lists; of an encoder-decoder the decoder's."""
    lists = {
        name: value
        for name, value in vars(backbone).items()
        if isinstance(value, (list, tuple))
        and not name.startswith("_")
        and value
        and all(isinstance(layer, keras.layers.Layer) for layer in value)
    }
    decoders = {name: value for name, value in lists.items() if "decoder" in name}
    return [layer for value in (decoders or lists).values() for layer in value]
