"""What keras-hub's models cannot compute: refused by name, before any weight is read.

A checkpoint that asks for it would load and give other numbers. Where only some inputs would, or
the numbers are nearly the same, it is a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

from keras_mpt.hugging_face.checkpoint_config import rope_type, sides, text_part
from keras_mpt.hugging_face.windows import SLIDING, layers_with_window
from keras_mpt.layer_settings import ACTIVATIONS, SYNONYMS
from keras_mpt.types import Config


class Limit(NamedTuple):
    """What a field must be where keras-hub computes one thing only.

    Attributes:
        allowed: values; the first is what a missing field means.
        reason: what keras-hub's model does.
    """

    allowed: tuple[Any, ...]
    reason: str


_ENCODER = {
    "position_embedding_type": Limit(("absolute", None), "adds absolute positions"),
    "is_decoder": Limit((False, None), "looks both ways"),
}
_ROBERTA = {**_ENCODER, "pad_token_id": Limit((1,), "counts positions from 2")}
_EXPERTS = {
    "mlp_only_layers": Limit(([], None), "has experts in each layer"),
    "decoder_sparse_step": Limit((1,), "has experts in each layer"),
}
_GEMMA_3 = {"attn_logit_softcapping": Limit((None,), "caps logits where transformers does not")}
_LIMITS: dict[str, dict[str, Limit]] = {
    "bert": _ENCODER,
    "albert": _ENCODER,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "esm": {"position_embedding_type": Limit(("rotary",), "has rotary positions")},
    "gpt2": {
        "scale_attn_weights": Limit((True,), "divides by the root of a head's width"),
        "scale_attn_by_inverse_layer_idx": Limit((False,), "computes all layers alike"),
        "add_cross_attention": Limit((False,), "has no encoder to look at"),
    },
    "bart": {"scale_embedding": Limit((False,), "does not scale embeddings")},
    "qwen2_moe": {**_EXPERTS, "qkv_bias": Limit((True,), "has biases of queries and keys")},
    "qwen3_moe": _EXPERTS,
    "gemma3": _GEMMA_3,
    "gemma3_text": _GEMMA_3,
    "t5gemma2": _GEMMA_3,
}
# T5Gemma's classes take the decoder's for both sides.
_BOTH_SIDES = (
    *("rms_norm_eps", "query_pre_attn_scalar", "attn_logit_softcapping", "hidden_activation"),
    *("attention_bias", "vocab_size"),
)
# Where the activation stands in keras-hub's code and can be no other.
_GEMMAS = ("gemma", "gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text")
_SILU = ("smollm3", "mixtral", "qwen2_moe", "qwen3_moe", "qwen3_5", "qwen3_5_moe")
_WRITTEN = {**dict.fromkeys(_GEMMAS, "gelu_new"), **dict.fromkeys(_SILU, "silu")}
# Where neither library reads the field.
_WITHOUT_ACTIVATION = ("esm", "gpt_oss")
_ACTIVATION_FIELDS = ("hidden_activation", "hidden_act", "activation_function", "activation")
# Kinds of rotary positions that keras-hub computes, beside the plain ones.
_LINEAR = (
    *("mistral", "mixtral", "gemma", "gemma2", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    *("qwen3_5", "qwen3_5_moe", "gemma3", "gemma3_text", "t5gemma2"),
)
_ROTARY = {"llama": ("llama3",), "gpt_oss": ("yarn",), **dict.fromkeys(_LINEAR, ("linear",))}
_YARN = {"beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 4096}
_ONE_HEAD_WIDTH = ("llama", "mixtral", "qwen2", "qwen2_moe", "smollm3")
# The text models that were measured beside transformers.
_MEASURED = (
    *("albert", "bart", "bert", "distilbert", "esm", "gpt2", "gpt_oss", "llama", "mistral"),
    *("mixtral", "roberta", "xlm-roberta", "smollm3", "t5gemma", "t5gemma2", *_GEMMAS, *_SILU),
    *("qwen2", "qwen3"),
)
# keras-hub drops these windows where it computes attention in one operation.
_WINDOW_IS_LOST = ("qwen2", "qwen3", "qwen3_moe")


def refuse(config: Config, source: str) -> None:
    """Raises where keras-hub would compute something else; warns where it is nearly the same.

    Args:
        config: the checkpoint's configuration.
        source: string. Its file, for messages.

    Raises:
        ValueError: a field whose value it cannot compute, or a kind of model that was not measured.
    """
    kind = config["model_type"]
    if kind not in _MEASURED:
        known = ", ".join(sorted({*_MEASURED, "t5", "mt5"}))
        raise ValueError(
            f"`model_type` should be that of a text model that keras-hub reads: {known}. Received: "
            f"model_type={kind!r} in {source!r}"
        )
    for part in sides(config).values():
        for name, limit in _LIMITS.get(kind, {}).items():
            value = part.get(name, limit.allowed[0])
            if value not in limit.allowed:
                _raise(name, limit.allowed[0], value, limit.reason, source)
        _check_activation(kind, part, source)
        _check_rotary(kind, part, source)
    _check_sides(config, source)
    _check_sizes(kind, text_part(config), source)
    _check_quantization(kind, config, source)
    _warn_of_windows(kind, config, source)
    if kind == "esm" and config.get("token_dropout", False):
        _warn(
            f"`token_dropout` of {source!r} is True: transformers multiplies the embeddings of ids "
            "by 0.88, keras-hub does not. Where PEFT puts prompts before them transformers does "
            "not either, so adapters give PEFT's numbers."
        )


def _check_activation(kind: str, config: Config, source: str) -> None:
    name = next((n for n in _ACTIVATION_FIELDS if config.get(n) is not None), None)
    if name is None or kind in _WITHOUT_ACTIVATION:
        return
    wanted, written = SYNONYMS.get(config[name], config[name]), _WRITTEN.get(kind)
    if written is None and wanted not in ACTIVATIONS:
        known = " or ".join(map(repr, sorted({*ACTIVATIONS, *SYNONYMS})))
        _raise(name, known, config[name], "has no other", source)
    elif {wanted, written} == {"gelu", "gelu_new"}:
        _warn(
            f"`{name}` of {source!r} is {config[name]!r}: keras-hub's model computes GELU by its "
            "tanh formula, and its numbers differ by some 1e-4 of the largest."
        )
    elif written is not None and wanted != written:
        _raise(name, repr(written), config[name], "has no other", source)


def _check_rotary(kind: str, config: Config, source: str) -> None:
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    found, known = rope_type(rope), _ROTARY.get(kind, ())
    if kind == "gpt_oss":
        said = rope if isinstance(rope, Mapping) else {}
        for name, value in {**_YARN, "truncate": False}.items():
            # What transformers takes where nothing is said.
            found_there = said.get(name, True if name == "truncate" else value)
            if found_there != value:
                _raise(name, value, found_there, "has no other", source)
    elif found is None and isinstance(rope, Mapping) and kind in _LINEAR:
        # One for each kind of layer.
        plain = (*known, None, "default")
        found = next((t for t in map(rope_type, rope.values()) if t not in plain), None)
    if kind != "gpt_oss" and found in (None, "default"):
        return
    if found not in known:
        wanted = " or ".join(map(repr, (*known, *(() if kind == "gpt_oss" else ("default",)))))
        _raise("rope_type", wanted, found, "has no other", source)


def _check_sides(config: Config, source: str) -> None:
    parts = list(sides(config).values())
    for name in _BOTH_SIDES if len(parts) == 2 else ():
        encoder, decoder = (part.get(name) for part in parts)
        if encoder != decoder:
            _raise(f"encoder.{name}", decoder, encoder, "has the decoder's on both sides", source)


def _check_sizes(kind: str, config: Config, source: str) -> None:
    """Sizes that keras-hub takes from another field."""
    width, hidden = config.get("head_dim"), config.get("hidden_size", 0)
    heads = config.get("num_attention_heads", 1)
    if kind in _ONE_HEAD_WIDTH and width and hidden and width * heads != hidden:
        _raise("head_dim", hidden // heads, width, "divides `hidden_size` by the heads", source)
    if kind == "gpt2" and config.get("n_inner") not in (None, 4 * config.get("n_embd", 0)):
        _raise("n_inner", "4 · `n_embd`", config["n_inner"], "has no other", source)
    for name in ("layers", "attention_heads", "ffn_dim") if kind == "bart" else ():
        here, there = config.get(f"encoder_{name}"), config.get(f"decoder_{name}")
        if here != there:
            _raise(f"decoder_{name}", here, there, "has the encoder's on both sides", source)


def _check_quantization(kind: str, config: Config, source: str) -> None:
    found = config.get("quantization_config")
    method = found.get("quant_method") if isinstance(found, Mapping) else None
    if found and not (kind == "gpt_oss" and method == "mxfp4"):
        _raise("quantization_config", None, found, "reads weights as they are", source)


def _warn_of_windows(kind: str, config: Config, source: str) -> None:
    window, is_lost = config.get("sliding_window"), False
    if kind == "t5gemma":
        windows = [part["sliding_window"] for part in sides(config).values() if _slides(part)]
        window, is_lost = min(windows, default=None), bool(windows)
    elif kind in _WINDOW_IS_LOST:
        is_lost = any(layers_with_window(kind, config) or ())
    if is_lost:
        _warn(
            f"`sliding_window` of {source!r} is {window}: keras-hub's model looks further back, so "
            "the numbers of longer texts differ."
        )


def _slides(config: Config) -> bool:
    types = config.get("layer_types") or [SLIDING]
    return SLIDING in types and bool(config.get("sliding_window"))


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)


def _raise(name: str, wanted: Any, found: Any, reason: str, source: str) -> None:
    raise ValueError(
        f"`{name}` should be {wanted}: keras-hub's model {reason}. Received: {name}={found!r} in "
        f"{source!r}"
    )
