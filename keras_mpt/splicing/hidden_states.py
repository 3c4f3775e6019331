"""The hidden states between a frozen backbone's layers, beside its own outputs."""

from __future__ import annotations

from typing import Any

import keras

from keras_mpt._keras import calls_of_graph
from keras_mpt.splicing.cut import part
from keras_mpt.types import Backbone, Tensors


class HiddenStates:
    """A graph that also gives what its layers give.

    A backbone keeps its layers in lists (`transformer_layers`, `decoder_layers`, …), or calls some
    of one class again and again; what each call of such a layer gives is a state. In an
    encoder-decoder these are the decoder's. The last one is the backbone's own output, after its
    last normalization: what a head reads.

    Args:
        backbone: a functional backbone.
        rest: `keras.Model`, the part of its graph to run.
        last: tensor of `rest`, the backbone's own output.
    """

    def __init__(self, backbone: Backbone, rest: keras.Model, last: keras.KerasTensor) -> None:
        self._rest = rest
        self._tensors = [*_layer_outputs(backbone, rest, last)[:-1], last]
        self._graphs: dict[tuple[int, ...], Any] = {}

    def __len__(self) -> int:
        return len(self._tensors)

    def __call__(
        self, inputs: Tensors, layers: tuple[int, ...], training: bool | None = None
    ) -> Any:
        """The graph's outputs, and the states of some layers.

        Args:
            inputs: as `rest` takes them.
            layers: tuple of ints in [-N, N) for N states.
            training: bool. Defaults to `None`.

        Returns:
            `(outputs, states)`, the latter a list.
        """
        if not layers:
            return self._rest(inputs, training=training), []
        if layers not in self._graphs:
            states = [self._tensors[i] for i in layers]
            self._graphs[layers] = part(self._rest.inputs, [self._rest.output, states])
        outputs, states = self._graphs[layers](inputs, training=training)
        return outputs, states


def _layer_outputs(backbone: Backbone, rest: keras.Model, last: keras.KerasTensor) -> list[Any]:
    """What each call of one of the backbone's layers gives, first call first."""
    calls = [
        node for node in calls_of_graph(rest) if isinstance(node.operation, keras.layers.Layer)
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
