"""An encoder-decoder in two halves: the encoder runs once for many passes of the decoder."""

from __future__ import annotations

from typing import NamedTuple

import keras

from keras_mpt.splicing.cut import part
from keras_mpt.splicing.splice import Splice
from keras_mpt.types import Tensor, Tensors


class Encoded(NamedTuple):
    """What the decoder needs of an encoder that ran.

    Attributes:
        states: float tensor (B, L + S, d).
        mask: int tensor (B, L + S).
    """

    states: Tensor
    mask: Tensor


class EncoderOnce:
    """The two halves of a spliced encoder-decoder; made by `encoder_once`.

    Args:
        splice: the model's `Splice`.
        encoder: `keras.Model` from the encoder's embeddings and mask to its states.
        decoder: `keras.Model` from the encoder's states and mask and the decoder's embeddings and
            mask to the backbone's other outputs.
    """

    def __init__(self, splice: Splice, encoder: keras.Model, decoder: keras.Model) -> None:
        self.splice, self.encoder, self.decoder = splice, encoder, decoder

    def encode(self, inputs: dict[str, Tensor], prompts: Tensor) -> Encoded:
        """Runs the encoder on `[prompts; tokens]`.

        Args:
            inputs: dict of the encoder's ids and mask, each (B, S) integer.
            prompts: float tensor (B, M·L, d).

        Returns:
            An `Encoded`.
        """
        embedded, longer = self.splice.embedded(0, inputs, prompts)
        mask = longer[str(self.splice.token_inputs[0].mask_name)]
        states = self.encoder([embedded, mask], training=False)
        return Encoded(states, mask)

    def decode(self, inputs: dict[str, Tensor], encoded: Encoded, prompts: Tensor) -> Tensors:
        """Runs the decoder on `[its prompt; tokens]`, or on its tokens where it has no prompt.

        Args:
            inputs: dict of the decoder's ids and mask, each (B, S) integer.
            encoded: what `encode` gave.
            prompts: float tensor (B, M·L, d).

        Returns:
            The backbone's outputs, prompt positions included.
        """
        embedded, longer = self.splice.embedded(1, inputs, prompts)
        name = str(self.splice.token_inputs[1].mask_name)
        fed = [*encoded, embedded, longer.get(name, inputs[name])]
        made = iter(keras.tree.flatten(self.decoder(fed, training=False)))
        every = self.splice.backbone.output
        symbolic = self.splice.follows_first_input(every)
        flat = [encoded.states if o is symbolic else next(made) for o in keras.tree.flatten(every)]
        return keras.tree.pack_sequence_as(every, flat)


def encoder_once(splice: Splice) -> EncoderOnce | None:
    """The two halves of a backbone, or `None` where its graph does not fall apart into them.

    The encoder's states are the backbone's output with one entry per token of the encoder. Where
    the decoder needs anything else of the encoder's, it cannot be run from them.

    Args:
        splice: the model's `Splice`.
    """
    backbone, masks = splice.backbone, [t.mask_name for t in splice.token_inputs]
    if len(masks) != 2 or sorted(splice.graph.plain_names) != sorted(map(str, masks)):
        return None
    encoder_tokens, decoder_tokens, *plain = splice.graph.fed
    encoder_mask, decoder_mask = (plain[splice.graph.plain_names.index(str(m))] for m in masks)
    states = splice.follows_first_input(backbone.output)
    others = [o for o in keras.tree.flatten(backbone.output) if o is not states]
    try:
        encoder = part(backbone, [encoder_tokens, encoder_mask], states)
        fed = [states, encoder_mask, decoder_tokens, decoder_mask]
        decoder = part(backbone, fed, others)
    except ValueError:
        return None
    return EncoderOnce(splice, encoder, decoder)
