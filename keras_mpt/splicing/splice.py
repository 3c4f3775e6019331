"""Running a frozen backbone with prompts among its token embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mpt.splicing.cut import TokenInput, cut, tables_of
from keras_mpt.splicing.hidden_states import HiddenStates
from keras_mpt.splicing.insert import (
    Place,
    drop,
    insert,
    insert_constant,
    insert_first,
    insert_positions,
)
from keras_mpt.types import Backbone, Tensor, Tensors

# The input that says how many of a row's tokens are the text that a prompt stands after.
TEXT_LENGTHS = "text_lengths"


class Splice:
    """A backbone that also takes prompts, as embeddings.

    It owns no variables and is no Keras layer: the backbone's are used where they are.

    Args:
        backbone: a functional backbone.
        num_virtual_tokens: int. L.
        num_transformer_submodules: int. M: how many of the backbone's token inputs get a prompt,
            encoder first.
        prompt_position: `"before"`, `"after_start"` or `"after"`.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_virtual_tokens: int,
        num_transformer_submodules: int = 1,
        prompt_position: str = "before",
    ) -> None:
        self.backbone = backbone
        self.graph = cut(backbone)
        if num_transformer_submodules > len(self.graph.token_inputs):
            raise ValueError(
                "`num_transformer_submodules` should be at most the number of token inputs of the "
                f"backbone, {len(self.graph.token_inputs)}. Received: "
                f"num_transformer_submodules={num_transformer_submodules}"
            )
        widths = [
            tensor.shape[-1] for tensor in self.graph.rest.inputs[:num_transformer_submodules]
        ]
        if len(set(widths)) > 1:
            raise ValueError(
                "`num_transformer_submodules` should be 1 where the token embeddings of the "
                f"backbone's encoder and decoder differ in width: {widths}. Received: "
                f"num_transformer_submodules={num_transformer_submodules}"
            )
        self.token_inputs = self.graph.token_inputs
        self.vocabulary_sizes = [vocabulary_size(t.embedding) for t in self.token_inputs]
        names = [name for t in self.token_inputs for name in t.other_names]
        self.table_rows = {name: _table_rows(tables_of(backbone, name)) for name in names}
        self.num_virtual_tokens = num_virtual_tokens
        self.num_transformer_submodules = num_transformer_submodules
        self.at = {"before": 0, "after_start": 1, "after": 0}[prompt_position]
        self.prompt_position, self.is_after = prompt_position, prompt_position == "after"
        self.max_sequence_length = _max_sequence_length(backbone)
        self._output_inputs = _inputs_that_outputs_follow(backbone, self.graph.token_inputs)
        last = self.follows_last_input(backbone.output)
        self.hidden_states = HiddenStates(backbone, self.graph, last)

    @property
    def states_have_prompt(self) -> bool:
        """Whether the last token input, whose positions `hidden_states` have, gets a prompt."""
        return len(self.token_inputs) <= self.num_transformer_submodules

    @property
    def token_dim(self) -> int:
        """d, the width of the token embedding (not of the hidden states: ALBERT's differ)."""
        return int(self.graph.rest.inputs[0].shape[-1])

    @property
    def vocabulary_size(self) -> int:
        """V, the rows of the token embedding; an encoder-decoder's are its encoder's."""
        return self.vocabulary_sizes[0]

    def place(self, inputs: dict[str, Any] | None = None) -> Place:
        """Where a prompt starts among the tokens.

        After a text it is before the text's last token: what follows is read off there.

        Args:
            inputs: dict of a call's inputs, which are looked at where the prompt stands after the
                text. Defaults to `None`.

        Returns:
            An int; after the text an int tensor (B,).
        """
        if not self.is_after:
            return self.at
        assert inputs is not None
        lengths = inputs.get(TEXT_LENGTHS)
        if lengths is None:  # All of a row's tokens are.
            mask = ops.convert_to_tensor(inputs[str(self.token_inputs[0].mask_name)])
            lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        return ops.cast(ops.convert_to_tensor(lengths), "int32") - 1

    def embed_tokens(self, token_ids: Tensor, i: int = 0) -> Tensor:
        """The embeddings of ids in the i-th of `token_inputs`, (N,) -> (N, d), no positions."""
        return token_table(self.token_inputs[i].embedding)(token_ids)

    def __call__(
        self, inputs: dict[str, Any], prompts: Tensor, training: bool | None = None
    ) -> Tensors:
        """Runs the backbone on `[prompts; tokens]`: `with_states` without states."""
        return self.with_states(inputs, prompts, (), training)[0]

    def with_states(
        self,
        inputs: dict[str, Any],
        prompts: Tensor,
        layers: tuple[int, ...],
        training: bool | None = None,
    ) -> tuple[Any, list[Any]]:
        """Runs the backbone on `[prompts; tokens]`, and gives some layers' hidden states too.

        Args:
            inputs: the backbone's own inputs by name. Those with one entry per token other than the
                ids and the mask may be left out: positions then count from 0, others are zeros.
            prompts: float tensor (B, M·L, d).
            layers: tuple of ints in [-N, N) for the N of `hidden_states`.
            training: bool. Defaults to `None`.

        Returns:
            The backbone's outputs, and a list of states, (B, L + S, d) each; prompt positions
            included.
        """
        inputs = {name: ops.convert_to_tensor(value) for name, value in inputs.items()}
        inputs = self._with_defaults(inputs)
        fed, embedded = dict(inputs), []
        for i in range(len(self.token_inputs)):
            embeddings, longer = self.embedded(i, inputs, prompts)
            embedded.append(embeddings)
            fed |= longer
        plain = [fed[name] for name in self.graph.plain_names]
        return self.hidden_states([*embedded, *plain], layers, training)

    def embedded(
        self, i: int, inputs: dict[str, Any], prompts: Tensor
    ) -> tuple[Any, dict[str, Any]]:
        """One token input's `[prompt; tokens]`.

        Args:
            i: int. Which of `token_inputs`.
            inputs: the backbone's inputs by name, those of this token input at least.
            prompts: float tensor (B, M·L, d).

        Returns:
            Its embeddings (B, L + S, d), or (B, S, d) where it has no prompt; and a dict of those
            of `inputs` that the prompt makes longer.
        """
        token_input, length = self.token_inputs[i], self.num_virtual_tokens
        ids = inputs[token_input.name]
        longer: dict[str, Any] = {}
        if i >= self.num_transformer_submodules:
            return token_input.embedding(ids), longer
        prompt, at = prompts[:, i * length : (i + 1) * length], self.place(inputs)
        if token_input.mask_name is not None:
            mask = inputs[token_input.mask_name]
            longer[token_input.mask_name] = insert_constant(mask, 1, length, at)
        for name in token_input.other_names:
            longer[name] = (
                insert_positions(inputs[name], length, at)
                if name in token_input.position_names
                else insert_constant(inputs[name], 0, length, at)
            )
        if token_input.ids_used_later:
            # A prompt has no ids. The row's first token stands in for it: under right padding it is
            # never a padding id, which is what the rest of the graph asks the ids for.
            longer[token_input.name] = insert_first(ids, length, at)
        return self._embed(token_input.embedding, ids, prompt, at), longer

    def _with_defaults(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """`inputs` with what may be left out."""
        inputs = dict(inputs)
        for token_input in self.token_inputs:
            zeros = ops.zeros_like(inputs[token_input.name])
            for name in token_input.other_names:
                positions = name in token_input.position_names
                default = (
                    zeros + ops.arange(ops.shape(zeros)[1], dtype=zeros.dtype)
                    if positions
                    else zeros
                )
                inputs.setdefault(name, default)
        return inputs

    def backbone_spec(self, inputs: dict[str, Tensor]) -> Tensors:
        """The backbone's outputs on symbolic inputs, without prompt positions.

        Needed because JAX cannot compare a symbolic length + L with the backbone's positions.

        Args:
            inputs: dict of `keras.KerasTensor`s, as in a call.

        Returns:
            A `keras.KerasTensor`, or a dict of them.
        """
        tokens = inputs[self.token_inputs[0].name]
        own = {t.name: inputs.get(t.name, tokens) for t in self.backbone.inputs}
        return self.backbone.compute_output_spec(own)

    def with_prompt_positions(self, spec: Tensors) -> Tensors:
        """The spec of a call's outputs, from that of the backbone's own."""

        def longer(output: Tensor, input_index: int | None) -> Tensor:
            if input_index is None or input_index >= self.num_transformer_submodules:
                return output
            rows, length, *rest = output.shape
            length = None if length is None else length + self.num_virtual_tokens
            return keras.KerasTensor((rows, length, *rest), output.dtype)

        return self._map_outputs(longer, spec)

    def user_positions(self, outputs: Tensors, inputs: dict[str, Any] | None = None) -> Tensors:
        """`outputs` of a call without the prompt positions; `inputs` as in `place`."""
        at = self.place(inputs)

        def without_prompt(output: Tensor, input_index: int | None) -> Tensor:
            if input_index is None or input_index >= self.num_transformer_submodules:
                return output
            return drop(output, self.num_virtual_tokens, at)

        return self._map_outputs(without_prompt, outputs)

    def user_states(self, states: Tensor, inputs: dict[str, Any] | None = None) -> Tensor:
        """Hidden states of `hidden_states` without the prompt positions; `inputs` likewise."""
        if not self.states_have_prompt:
            return states
        return drop(states, self.num_virtual_tokens, self.place(inputs))

    def places(self, positions: Tensor) -> Tensor:
        """Where tokens stand among `[prompts; tokens]`, from where they stand among the user's."""
        moved = positions + self.num_virtual_tokens
        return ops.where(positions >= self.at, moved, positions)

    def follows_first_input(self, outputs: Tensors) -> Tensor:
        """The first output with one entry per token of the first input."""
        flat = keras.tree.flatten(outputs)
        return flat[self._output_inputs.index(0)]

    def follows_last_input(self, outputs: Tensors) -> Tensor:
        """The first output with one entry per token of the last input: what is generated."""
        flat = keras.tree.flatten(outputs)
        return flat[self._output_inputs.index(len(self.token_inputs) - 1)]

    def _map_outputs(
        self, function: Callable[[Tensor, int | None], Tensor], outputs: Tensors
    ) -> Tensors:
        flat = keras.tree.flatten(outputs)
        mapped = [function(o, i) for o, i in zip(flat, self._output_inputs, strict=True)]
        return keras.tree.pack_sequence_as(outputs, mapped)

    def _embed(
        self, embedding: keras.layers.Layer, token_ids: Tensor, prompt: Tensor, at: Place
    ) -> Tensor:
        """`[prompt; tokens]` as the embedding layer would give it, positions included."""
        tokens = token_table(embedding)(token_ids)
        sequence = insert(tokens, ops.cast(prompt, tokens.dtype), at)
        if token_table(embedding) is embedding:
            return sequence
        return sequence + embedding.position_embedding(sequence)


def token_table(embedding: keras.layers.Layer) -> keras.layers.Layer:
    """The token embedding itself, where a layer holds one beside learned positions."""
    import keras_hub

    if isinstance(embedding, keras_hub.layers.TokenAndPositionEmbedding):
        return embedding.token_embedding
    return embedding


def vocabulary_size(embedding: keras.layers.Layer) -> int:
    """How many tokens an embedding has."""
    table = token_table(embedding)
    if hasattr(table, "input_dim"):
        return int(table.input_dim)
    return max(int(w.shape[0]) for w in table.weights if len(w.shape) == 2)


def _table_rows(tables: list[keras.layers.Layer]) -> int | None:
    """How many ids the smallest of some tables has, or `None` where there is none that says it."""
    return min((int(t.input_dim) for t in tables if hasattr(t, "input_dim")), default=None)


def _max_sequence_length(backbone: Backbone) -> int | None:
    """How many positions the backbone has, where that is limited."""
    import keras_hub

    layers = [x for layer in backbone.layers for x in (layer, *_inner_position_embedding(layer))]
    lengths = [
        layer.sequence_length
        for layer in layers
        if isinstance(layer, keras_hub.layers.PositionEmbedding)
    ]
    declared = getattr(backbone, "max_sequence_length", None)
    return min([*lengths, *([declared] if isinstance(declared, int) else [])], default=None)


def _inner_position_embedding(layer: keras.layers.Layer) -> list[Any]:
    return [layer.position_embedding] if hasattr(layer, "position_embedding") else []


def _inputs_that_outputs_follow(
    backbone: Backbone, token_inputs: tuple[TokenInput, ...]
) -> list[int | None]:
    """For each flat output, the index of the token input whose length its axis 1 has, or `None`.

    Found by giving each token input a length of its own and looking at the outputs' shapes.
    """
    lengths: dict[str, int] = {}
    for i, token_input in enumerate(token_inputs):
        names = (token_input.name, token_input.mask_name, *token_input.other_names)
        lengths.update({name: 5 + 2 * i for name in names if name is not None})
    spec = {
        tensor.name: keras.KerasTensor(
            (1, lengths[tensor.name], *tensor.shape[2:])
            if tensor.name in lengths
            else tuple(1 if n is None else n for n in tensor.shape),
            dtype=tensor.dtype,
        )
        for tensor in backbone.inputs
    }
    outputs = keras.tree.flatten(backbone.compute_output_spec(spec))
    by_length = {5 + 2 * i: i for i in range(len(token_inputs))}
    return [by_length.get(o.shape[1]) if len(o.shape) > 2 else None for o in outputs]
