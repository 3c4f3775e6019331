"""Facts about families of backbones that are known by a class's name alone, each with its reason.

Everything else is found out from a backbone itself. A test compares the families that are not
listed here with what the general rule gives.
"""

from __future__ import annotations

from typing import Any

from keras_mpt.types import Backbone

# Where keras-hub 0.32's own cached path does not compute what its model does.
_CACHE_IS_NOT_THE_MODEL = {
    "GPTNeoXBackbone": "each cached step turns its query as if it stood at the first position",
}
# Where it does so for rows without padding on their left alone.
_CACHE_IS_NOT_FOR_LEFT_PADDING = {
    "FalconBackbone": "the model counts a row's positions without padding, the cached path with it",
}
# Where transformers, too, multiplies after `embed_tokens` (5.23, `modeling_t5gemma.py`).
_SCALED_AFTER_EMBEDDING = ("T5GemmaBackbone",)
# transformers' names of a text classifier's two layers, where they are not RoBERTa's.
_TWO_LAYER_HEADS: dict[str, tuple[str, ...]] = {
    "DistilBertBackbone": ("pre_classifier", "classifier"),
    "DebertaV3Backbone": ("pooler.dense", "classifier"),
}
# Decoders whose own token classifiers are older than the "score" that the later ones share.
_TOKEN_CLASSIFIER = ("GPT2Backbone", "BloomBackbone", "FalconBackbone", "GPTNeoXBackbone")


def _name(backbone: Backbone) -> str:
    return type(backbone).__name__


def adds_losses(layer: Any) -> bool:
    """Whether a backbone, or a layer of one, adds a loss while training.

    It is a mean over positions, padding among them: that of experts' balance in Mixtral and its
    like.
    """
    names = [name for name in vars(layer) if name.startswith("router_aux_loss_coef")]
    return any(getattr(layer, name) for name in names)


def has_right_cache(backbone: Backbone) -> bool:
    """Whether keras-hub's cached path computes what the model does."""
    return _name(backbone) not in _CACHE_IS_NOT_THE_MODEL


def cache_takes_left_padding(backbone: Backbone) -> bool:
    """Whether it does so whatever the padding."""
    return _name(backbone) not in _CACHE_IS_NOT_FOR_LEFT_PADDING


def transformers_scales_after_embedding(backbone: Backbone) -> bool:
    """Whether transformers scales token embeddings outside of `embed_tokens`, as keras-hub does."""
    return _name(backbone) in _SCALED_AFTER_EMBEDDING


def two_layer_head(backbone: Backbone, default: tuple[str, ...]) -> tuple[str, ...]:
    """What transformers calls the hidden layer and the output of a text classifier's head."""
    return _TWO_LAYER_HEADS.get(_name(backbone), default)


def decoder_has_token_classifier(backbone: Backbone) -> bool:
    """Whether transformers calls a decoder's head for tokens "classifier", not "score"."""
    return _name(backbone) in _TOKEN_CLASSIFIER
