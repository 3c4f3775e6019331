"""Backbones small enough to run in milliseconds, one of each kind, and inputs for them."""

from typing import Any

import keras
import keras_hub
import numpy as np

from keras_mpt.splicing.cut import cut

VOCABULARY, WIDTH, POSITIONS = 50, 16, 32
_SIZES = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": WIDTH,
    "intermediate_dim": 32,
}

# BERT has segments, RoBERTa a layer for tokens and positions together, GPT-2 and Llama are causal
# (with learned and with rotary positions), T5 is an encoder-decoder, ALBERT's token embedding is
# narrower than its hidden states, ESM reads its padding mask off the ids.
KINDS = ("bert", "roberta", "gpt2", "llama", "t5", "albert", "esm")


def backbone(kind: str = "bert", **kwargs: Any) -> Any:
    """A fresh backbone with random weights."""
    models = keras_hub.models
    match kind:
        case "bert":
            return models.BertBackbone(**_SIZES, max_sequence_length=POSITIONS, **kwargs)
        case "roberta":
            return models.RobertaBackbone(**_SIZES, max_sequence_length=POSITIONS, **kwargs)
        case "gpt2":
            return models.GPT2Backbone(**_SIZES, max_sequence_length=POSITIONS, **kwargs)
        case "llama":
            sizes = {k: v for k, v in _SIZES.items() if k != "num_heads"}
            heads = {"num_query_heads": 2, "num_key_value_heads": 1}
            return models.LlamaBackbone(**sizes, **heads, **kwargs)
        case "t5":
            return models.T5Backbone(**_SIZES, **kwargs)
        case "bart":
            return models.BartBackbone(**_SIZES, max_sequence_length=POSITIONS, **kwargs)
        case "albert":
            return models.AlbertBackbone(**_SIZES, embedding_dim=8, **kwargs)
        case "esm":
            return models.ESMBackbone(**_SIZES, **kwargs)
        case "plain":
            return _plain(**kwargs)
    raise ValueError(kind)


def _plain(**kwargs: Any) -> Any:
    """One attention layer, not keras-hub's: quick to compile, for what no architecture changes."""
    ids, mask = (keras.Input((None,), dtype="int32", name=n) for n in ("token_ids", "padding_mask"))
    tokens = keras.layers.Embedding(VOCABULARY, WIDTH, embeddings_initializer="normal")(ids)
    tokens = tokens + keras_hub.layers.PositionEmbedding(POSITIONS)(tokens)
    states = keras.layers.MultiHeadAttention(2, 8)(tokens, tokens, attention_mask=mask[:, None])
    return keras.Model({"token_ids": ids, "padding_mask": mask}, tokens + states, **kwargs)


def with_large_weights(of: Any, seed: int = 0, deviation: float = 0.3) -> Any:
    """The backbone with random matrices that do not make all it is given small.

    As they start, backbones hardly look at their tokens, let alone at a prompt.
    """
    rng = np.random.default_rng(seed)
    for variable in of.weights:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(0, deviation, variable.shape))
    return of


def inputs(of: Any, rows: int = 4, length: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of a backbone; odd rows are padded on the right."""
    rng = np.random.default_rng(seed)
    mask = np.ones((rows, length), "int32")
    mask[1::2, length - 2 :] = 0
    x = {}
    for token_input in cut(of).token_inputs:
        # From 2: 0 and 1 are padding ids in one family or another.
        ids = rng.integers(2, VOCABULARY, (rows, length)).astype("int32")
        if token_input.mask_name is None:
            ids = np.where(mask == 1, ids, 1).astype("int32")  # ESM's padding id.
        else:
            x[token_input.mask_name] = mask
        x[token_input.name] = ids
        for name in token_input.other_names:
            x[name] = np.repeat([[0] * (length // 2) + [1] * (length - length // 2)], rows, 0)
    return x
