"""The families that keras-hub reads Hugging Face weights of, each as a tiny random model.

What a configuration says beside sizes is what the released models of the family say: epsilons,
activations, scales, windows, kinds of positions.

`transformers` and `torch` are imported where they are used, so that this file can be read without.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

VOCABULARY = 60
# 1, as RoBERTa counts its positions from there, and ESM takes its padding mask from the ids.
PADDING = 1
_COMMON = {"vocab_size": VOCABULARY, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
# hidden 16, two layers: what most configurations of transformers call them.
_SIZES = {
    **_COMMON,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_GROUPED = {**_SIZES, "num_key_value_heads": 1, "tie_word_embeddings": False}
_HEADS = {**_GROUPED, "head_dim": 8}
_GEMMA = {**_HEADS, "tie_word_embeddings": True}
_ENCODER = {**_SIZES, "max_position_embeddings": 64}
_ROBERTA = {**_ENCODER, "layer_norm_eps": 1e-5}
_T5 = {
    **_COMMON, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
    "dropout_rate": 0.0, "decoder_start_token_id": 1,
}  # fmt: skip
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_LAYERS = ["sliding_attention", "full_attention"]


@dataclasses.dataclass(frozen=True)
class Family:
    """One row of the parity table.

    Attributes:
        name: the family's name in the table.
        task_type: PEFT's, of the adapter.
        backbone: the name of keras-hub's class.
        make: function without arguments that gives a `transformers` model, with the head that
            published checkpoints of the family have.
        published: changes to the saved `config.json` that make it what published checkpoints have
            and keras-hub's converter reads, where transformers 5 now writes something else.
        adjust: function of the model and its folder, called after it was saved.
        note: what the reader of the table should know.
    """

    name: str
    task_type: str
    backbone: str
    make: Callable[[], Any]
    published: dict[str, Any] = dataclasses.field(default_factory=dict)
    adjust: Callable[[Any, Path], None] | None = None
    note: str = ""


def _make(class_name: str, config_name: str, **config: Any) -> Any:
    """A model of transformers from a configuration of this size."""
    import transformers

    cls, config_cls = getattr(transformers, class_name), getattr(transformers, config_name)
    return cls(config_cls(**config))


def variant(name: str, **changes: Any) -> Family:
    """A family's row with other values in its configuration."""
    family = next(f for f in FAMILIES if f.name == name)
    if not changes:
        return family
    return dataclasses.replace(family, make=functools.partial(family.make, **changes))


def _family(
    name: str, task_type: str, backbone: str, model: str, config: str, **sizes: Any
) -> Family:
    fields = {f.name for f in dataclasses.fields(Family)}
    others = {key: sizes.pop(key) for key in list(sizes) if key in fields}
    return Family(
        name,
        task_type,
        f"{backbone}Backbone",
        functools.partial(_make, model, config, **sizes),
        **others,
    )


def _causal(name: str, prefix: str, backbone: str, **kwargs: Any) -> Family:
    kwargs.setdefault("config", f"{prefix}Config")
    kwargs.setdefault("model", f"{prefix}ForCausalLM")
    return _family(name, "CAUSAL_LM", backbone, **kwargs)


def _encoder(name: str, prefix: str, backbone: str, **kwargs: Any) -> Family:
    model, config = f"{prefix}ForSequenceClassification", f"{prefix}Config"
    return _family(name, "SEQ_CLS", backbone, model, config, **kwargs)


def _t5gemma() -> Any:
    import transformers

    module = {**_GEMMA, "layer_types": _LAYERS, "sliding_window": 64, "query_pre_attn_scalar": 8}
    module |= {"dropout_rate": 0.0, "attn_logit_softcapping": 50.0}
    config = transformers.T5GemmaConfig(
        encoder=module, decoder={**module, "cross_attention_hidden_size": 16}, dropout_rate=0.0,
        **_COMMON,
    )  # fmt: skip
    return transformers.T5GemmaForConditionalGeneration(config)


def _t5gemma2() -> Any:
    import transformers

    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
    }
    module = {
        **_GEMMA,
        "layer_types": _LAYERS,
        "sliding_window": 4,
        "query_pre_attn_scalar": 8,
        "dropout_rate": 0.0,
        "rope_parameters": rope,
        "max_position_embeddings": 64,
    }
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 1, "image_size": 8, "patch_size": 4}  # fmt: skip
    config = transformers.T5Gemma2Config(
        encoder={"text_config": module, "vision_config": vision, "vocab_size": VOCABULARY,
                 "mm_tokens_per_image": 4, "image_token_index": 50},
        decoder=module, dropout_rate=0.0, eoi_token_index=51, image_token_index=50,
        **_COMMON,
    )  # fmt: skip
    return transformers.T5Gemma2ForConditionalGeneration(config)


def _rename(folder: Path, renamed: Callable[[str], str]) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    state = {renamed(name): value for name, value in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})


def _norms_by_weight(model: Any, folder: Path) -> None:
    """Names norms as published checkpoints do; transformers 5 saves "gamma" and "beta" here."""
    _rename(
        folder,
        lambda name: name.replace("Norm.gamma", "Norm.weight").replace("Norm.beta", "Norm.bias"),
    )


def _text_only(model: Any, folder: Path) -> None:
    """Takes the vision tower out of a saved configuration: keras-hub builds the text model."""
    config = json.loads((folder / "config.json").read_text())
    del config["encoder"]["vision_config"]
    (folder / "config.json").write_text(json.dumps(config))


def _beside_vision(model: Any, folder: Path) -> None:
    """Names tensors as a checkpoint of text and images does, the only one that is published."""
    _rename(folder, lambda name: name.replace("model.", "model.language_model.", 1))


def _write_mxfp4(model: Any, folder: Path) -> None:
    """Gives experts random four-bit weights, and the folder the packed form of published ones.

    keras-hub's converter reads no other; the model gets what transformers makes of the same bytes.
    """
    import torch
    from safetensors.torch import load_file, save_file
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    state = load_file(folder / "model.safetensors")
    parameters = dict(model.named_parameters())
    for name in [n for n in state if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, width_in, width_out = state.pop(name).shape
        blocks = torch.randint(0, 256, (experts, width_out, width_in // 32, 16), dtype=torch.uint8)
        scales = torch.full(blocks.shape[:3], 127 - 4, dtype=torch.uint8)  # Times 2 ** -4.
        state |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        unpacked = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
        assert unpacked.shape == parameters[name].shape
        parameters[name].data = unpacked
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


_LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 3,
}
_EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
_SHARED_EXPERT = {**_EXPERTS, "shared_expert_intermediate_size": 16}

_LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "factor": 32.0, "truncate": False}
_THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}}
_GEMMA_3_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
}

FAMILIES = (
    _encoder("bert", "Bert", "Bert", **_ENCODER, **_NO_DROPOUT, note="with the exact GELU"),
    _encoder("roberta", "Roberta", "Roberta", **_ROBERTA, **_NO_DROPOUT,
             note="its row of segments is random here, 0 in published ones"),
    _encoder("xlm_roberta", "XLMRoberta", "XLMRoberta", **_ROBERTA, **_NO_DROPOUT),
    _encoder(
        "distilbert", "DistilBert", "DistilBert", dim=16, hidden_dim=32, n_layers=2, n_heads=2,
        max_position_embeddings=64, dropout=0.0, attention_dropout=0.0, **_COMMON,
    ),
    _encoder("albert", "Albert", "Albert", embedding_size=16, **_ENCODER, **_NO_DROPOUT,
             hidden_act="gelu", note="version 1; version 2 has the tanh GELU"),
    _encoder(
        "esm", "Esm", "ESM", adjust=_norms_by_weight, position_embedding_type="rotary",
        note="on PyTorch; on JAX keras-hub's own attends to padding", token_dropout=True,
        mask_token_id=3, **_ROBERTA, **_NO_DROPOUT,
    ),
    _causal(
        "gpt2", "GPT2", "GPT2", model="GPT2LMHeadModel", n_embd=16, n_layer=2, n_head=2,
        n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **_COMMON,
    ),
    _causal("llama", "Llama", "Llama3", **_GROUPED, rms_norm_eps=1e-5, rope_parameters=_LLAMA_3,
            note="Llama 3.1, as transformers 5 writes its rotary positions"),
    _causal("smollm2", "Llama", "Llama3", **{**_GROUPED, "tie_word_embeddings": True},
            rms_norm_eps=1e-5),
    _causal("mistral", "Mistral", "Mistral", **_HEADS, sliding_window=6, rms_norm_eps=1e-5),
    _causal("mixtral", "Mixtral", "Mixtral", **_GROUPED, num_local_experts=4, **_THETA),
    _causal("gpt_oss", "GptOss", "GptOss", adjust=_write_mxfp4, **{**_HEADS, "hidden_size": 32},
            num_local_experts=4, num_experts_per_tok=2, sliding_window=6, layer_types=_LAYERS,
            rms_norm_eps=1e-5, published={"rope_scaling": _YARN}),
    _causal("smollm3", "SmolLM3", "SmolLM3", **{**_GROUPED, "tie_word_embeddings": True},
            no_rope_layers=[1, 0]),
    _causal("qwen", "Qwen2", "Qwen", **_GROUPED, **_THETA),
    _causal("qwen_moe", "Qwen2Moe", "QwenMoe", **_GROUPED, **_SHARED_EXPERT, **_THETA),
    _causal("qwen3", "Qwen3", "Qwen3", **_HEADS, **_THETA),
    _causal("qwen3_moe", "Qwen3Moe", "Qwen3Moe", published={"num_experts": 4}, **_HEADS,
            **_EXPERTS, **_THETA, norm_topk_prob=True),
    _causal("qwen3_5", "Qwen3_5", "Qwen3_5", config="Qwen3_5TextConfig",
            published={"model_type": "qwen3_5"}, adjust=_beside_vision, **_HEADS,
            **_LINEAR_ATTENTION),
    _causal("qwen3_5_moe", "Qwen3_5Moe", "Qwen3_5Moe", config="Qwen3_5MoeTextConfig",
            published={"model_type": "qwen3_5_moe"}, adjust=_beside_vision, **_HEADS,
            **_LINEAR_ATTENTION, **_SHARED_EXPERT),
    _causal("gemma", "Gemma", "Gemma", **_GEMMA),
    _causal("gemma2", "Gemma2", "Gemma", **_GEMMA, sliding_window=6, query_pre_attn_scalar=9,
            note="a scale of queries as the 27B's, which is not a head's width"),
    _causal("gemma3", "Gemma3", "Gemma3", config="Gemma3TextConfig", **_GEMMA, sliding_window=6,
            layer_types=_LAYERS, rope_parameters=_GEMMA_3_ROPE, query_pre_attn_scalar=10,
            note="a scale of queries as the 27B's, which is not a head's width"),
    _causal("gemma4", "Gemma4", "Gemma4", config="Gemma4TextConfig", **_GEMMA, sliding_window=6,
            layer_types=_LAYERS, hidden_size_per_layer_input=0, global_head_dim=8),
    _family(
        "bart", "SEQ_2_SEQ_LM", "Bart", "BartForConditionalGeneration", "BartConfig",
        published={"num_hidden_layers": 2}, d_model=16, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
        max_position_embeddings=64, decoder_start_token_id=2, forced_eos_token_id=None, **_COMMON,
    ),
    _family(
        "t5", "SEQ_2_SEQ_LM", "T5", "T5ForConditionalGeneration", "T5Config", **_T5,
    ),
    _family(
        "t5_v1_1", "SEQ_2_SEQ_LM", "T5", "T5ForConditionalGeneration", "T5Config",
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, **_T5,
    ),
    Family("t5gemma", "SEQ_2_SEQ_LM", "T5GemmaBackbone", _t5gemma,
           note="window longer than the sequence: keras-hub's encoder has none"),
    Family("t5gemma2", "SEQ_2_SEQ_LM", "T5Gemma2Backbone", _t5gemma2, adjust=_text_only),
)  # fmt: skip

# One of each kind, which every backend is measured on.
KINDS = ("gpt2", "bert", "bart")
# Those that are trained as well: T5, which the paper is about, on PyTorch alone.
TRAINED = (*KINDS, "t5")
# PyTorch computes them all: PEFT runs on it, and without compiling it is the fastest here.
ALL_ON = "torch"


def measured_on(backend: str) -> tuple[Family, ...]:
    """The families that are measured on a Keras backend."""
    return tuple(f for f in FAMILIES if backend == ALL_ON or f.name in KINDS)
