"""What Hugging Face models call the heads after a backbone, and PEFT therefore in an adapter.

PEFT saves a head under `base_model.`, with the names of the model's own modules. Those are facts of
transformers, one per kind of model; `families.py` has those of single families.
"""

from __future__ import annotations

from typing import Any

from keras_mpt.families import decoder_has_token_classifier, two_layer_head
from keras_mpt.types import Backbone

PREFIX = "base_model"
ANSWERS = "qa_outputs"
# One output layer; and the hidden layer and output of RoBERTa, XLM-RoBERTa, ESM, ELECTRA, RoFormer.
_ONE_LAYER: tuple[str, ...] = ("classifier",)
_TWO_LAYERS: tuple[str, ...] = ("classifier.dense", "classifier.out_proj")


def text_head(backbone: Backbone, num_layers: int, pooling: str) -> tuple[str, ...]:
    """The modules of a text classifier's head, the output layer last.

    Args:
        backbone: a `keras_hub.models.Backbone`.
        num_layers: int. How many layers with weights the head has.
        pooling: string. `"last"` is how transformers' decoders classify.

    Returns:
        A tuple of `num_layers` strings.
    """
    if pooling == "last":
        return ("score",)
    if num_layers == 1:
        return _ONE_LAYER
    if num_layers == 2:
        return two_layer_head(backbone, _TWO_LAYERS)
    # No model of transformers has such a head.
    return (*(f"classifier.hidden_{i}" for i in range(num_layers - 1)), "classifier.out_proj")


def token_head(backbone: Backbone, is_decoder: bool) -> tuple[str, ...]:
    """As `text_head`, of a token classifier's one layer."""
    has_score = is_decoder and not decoder_has_token_classifier(backbone)
    return ("score",) if has_score else _ONE_LAYER


def output_weight(state: dict[str, Any]) -> tuple[str, Any] | None:
    """The module and weight (C, d) of the output layer of the head in an adapter, if it has one."""
    for module in ("score", "classifier", "classifier.out_proj", ANSWERS):
        weight = state.get(f"{PREFIX}.{module}.weight")
        if weight is not None:
            return module, weight
    return None
