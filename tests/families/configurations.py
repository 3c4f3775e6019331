"""A tiny configuration of every text backbone of keras-hub, and what is not in the table and why.

Sizes are shared, so that what one family compiles (the draws of its weights) the next one reuses.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras_hub

VOCABULARY, WIDTH, INNER = 50, 8, 16

# What most constructors take.
_SIZES = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 1,
    "hidden_dim": WIDTH,
    "intermediate_dim": INNER,
}
_HEADS = {**_SIZES, "num_heads": 2}
_ENCODER = {**_HEADS, "max_sequence_length": 32}
# Two query heads on one key head, as grouped attention has it.
_GROUPED = {**_SIZES, "num_query_heads": 2, "num_key_value_heads": 1}
_GEMMA = {**_GROUPED, "head_dim": 4}
_EXPERTS = {"moe_intermediate_dim": INNER, "num_experts": 3, "top_k": 2}
_LINEAR_ATTENTION = {
    "num_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "partial_rotary_factor": 0.5,
    "linear_num_key_heads": 1,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
_T5GEMMA = {
    "vocabulary_size": VOCABULARY,
    **{
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "hidden_dim": WIDTH,
            "intermediate_dim": INNER,
            "num_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 4,
            "layer_types": ["full_attention"],
        }.items()
    },
}


@dataclasses.dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        backbone: name of the class in `keras_hub.models`.
        arguments: the constructor's.
    """

    backbone: str
    arguments: dict[str, Any]

    def build(self) -> Any:
        """A fresh backbone with random weights."""
        return getattr(keras_hub.models, self.backbone)(**self.arguments)


FAMILIES = {
    "ALBERT": Family("AlbertBackbone", {**_ENCODER, "embedding_dim": 4}),
    "BERT": Family("BertBackbone", _ENCODER),
    "DeBERTaV3": Family("DebertaV3Backbone", {**_ENCODER, "bucket_size": 8}),
    "DistilBERT": Family("DistilBertBackbone", _ENCODER),
    "ELECTRA": Family(
        "ElectraBackbone",
        {
            **{k: v for k, v in _ENCODER.items() if k != "vocabulary_size"},
            "vocab_size": VOCABULARY,
            "embedding_dim": 4,
        },
    ),
    "ESM": Family("ESMBackbone", _ENCODER),
    "FNet": Family("FNetBackbone", {k: v for k, v in _ENCODER.items() if k != "num_heads"}),
    "RoBERTa": Family("RobertaBackbone", _ENCODER),
    "RoFormerV2": Family("RoformerV2Backbone", {**_HEADS, "head_size": 4}),
    "XLM-RoBERTa": Family("XLMRobertaBackbone", _ENCODER),
    "BLOOM": Family("BloomBackbone", _HEADS),
    "Falcon": Family("FalconBackbone", {**_SIZES, "num_attention_heads": 2}),
    "Gemma": Family("GemmaBackbone", _GEMMA),
    "Gemma 2": Family(
        "GemmaBackbone",
        {
            **_GEMMA,
            "num_layers": 2,
            "query_head_dim_normalize": False,
            "use_post_ffw_norm": True,
            "use_post_attention_norm": True,
            "attention_logit_soft_cap": 50,
            "final_logit_soft_cap": 30,
            "use_sliding_window_attention": True,
            "sliding_window_size": 4,
        },
    ),
    "Gemma 3": Family(
        "Gemma3Backbone",
        {
            **_GEMMA,
            "image_size": 16,
            "use_post_ffw_norm": True,
            "use_post_attention_norm": True,
            "use_sliding_window_attention": True,
            "sliding_window_size": 4,
        },
    ),
    "Gemma 4": Family(
        "Gemma4Backbone",
        {
            **_GEMMA,
            "image_size": 16,
            "num_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window_size": 4,
        },
    ),
    "GPT-2": Family("GPT2Backbone", _ENCODER),
    "GPT-NeoX": Family("GPTNeoXBackbone", {**_ENCODER, "rotary_percentage": 0.5}),
    "GPT-OSS": Family(
        "GptOssBackbone",
        {**_GROUPED, "num_experts": 3, "top_k": 2, "sliding_window": 4, "head_dim": 4},
    ),
    "Llama": Family("LlamaBackbone", _GROUPED),
    "Llama 3": Family("Llama3Backbone", _GROUPED),
    "Mistral": Family("MistralBackbone", {**_GROUPED, "sliding_window": 4}),
    "Mixtral": Family(
        "MixtralBackbone", {**_GROUPED, "num_experts": 3, "top_k": 2, "sliding_window": 4}
    ),
    "OPT": Family("OPTBackbone", _ENCODER),
    "Phi-3": Family("Phi3Backbone", _GROUPED),
    "Qwen 2": Family("QwenBackbone", _GROUPED),
    "Qwen 2 MoE": Family(
        "QwenMoeBackbone", {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_dim": INNER}
    ),
    "Qwen 3": Family("Qwen3Backbone", _GEMMA),
    "Qwen 3 MoE": Family("Qwen3MoeBackbone", {**_GEMMA, **_EXPERTS}),
    "Qwen 3.5": Family("Qwen3_5Backbone", {**_GEMMA, **_LINEAR_ATTENTION}),
    "Qwen 3.5 MoE": Family(
        "Qwen3_5MoeBackbone",
        {
            **{k: v for k, v in _GEMMA.items() if k != "intermediate_dim"},
            # Its linear attention is Qwen 3.5's layer, which takes long to compile.
            "layer_types": ["full_attention"],
            "partial_rotary_factor": 0.5,
            **_EXPERTS,
            "shared_expert_intermediate_size": INNER,
        },
    ),
    "RWKV-7": Family(
        "RWKV7Backbone",
        {
            "vocabulary_size": VOCABULARY,
            "num_layers": 1,
            "hidden_size": WIDTH,
            "head_size": 4,
            "intermediate_dim": INNER,
            "gate_lora": 4,
            "mv_lora": 4,
            "aaa_lora": 4,
            "decay_lora": 4,
        },
    ),
    "SmolLM 3": Family(
        "SmolLM3Backbone",
        {
            **_SIZES,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "rope_layer_enabled_list": [True],
            "layer_types": ["full_attention"],
            "mlp_bias": False,
            "layer_norm_epsilon": 1e-5,
            "max_position_embeddings": 32,
            "rope_theta": 10000.0,
            "partial_rotary_factor": 1.0,
        },
    ),
    "BART": Family("BartBackbone", _ENCODER),
    "EdRec": Family(
        "EdRecBackbone",
        {
            "vocab_size": VOCABULARY,
            "num_layers_enc": 1,
            "num_layers_dec": 1,
            "hidden_dim": WIDTH,
            "intermediate_dim": INNER,
            "num_heads": 2,
        },
    ),
    "T5": Family("T5Backbone", _HEADS),
    "T5Gemma": Family("T5GemmaBackbone", _T5GEMMA),
    "T5Gemma 2": Family("T5Gemma2Backbone", _T5GEMMA),
}

# keras-hub's text backbones that a prompt cannot enter, each with what stands in the error.
REFUSED = {
    "Gemma 3n": (
        Family(
            "Gemma3nBackbone",
            {
                "text_vocab_size": VOCABULARY,
                "text_hidden_size": WIDTH,
                "num_hidden_layers": 1,
                "pad_token_id": 0,
                "num_attention_heads": 1,
                "num_key_value_heads": 1,
                "head_dim": 8,
                "intermediate_size": [INNER],
                "hidden_activation": "gelu_approximate",
                "layer_types": ["full_attention"],
                "sliding_window": 4,
                "rope_theta": 10000.0,
                "max_position_embeddings": 16,
                "vocab_size_per_layer_input": VOCABULARY,
                "hidden_size_per_layer_input": 2,
                "altup_num_inputs": 2,
                "laurel_rank": 1,
            },
        ),
        "`backbone` should look 'token_ids' up in exactly one layer with weights, as they come in: "
        "a prompt has no ids that another table could be asked for. Received: "
        "backbone=<Gemma3nBackbone>, which looks them up in ['multimodal_embedding_processor', "
        "'text_model']",
    ),
    "Gemma 4 with tables per layer": (
        Family("Gemma4Backbone", {**_GEMMA, "image_size": 16, "hidden_size_per_layer_input": 2}),
        "`backbone` should look 'token_ids' up in exactly one layer with weights, as they come in: "
        "a prompt has no ids that another table could be asked for. Received: "
        "backbone=<Gemma4Backbone>, which looks them up in ['per_layer_token_embedding', "
        "'token_embedding']",
    ),
    "XLNet": (
        Family("XLNetBackbone", _HEADS),
        "`backbone` should embed 'token_ids' in a layer that gives embeddings of shape "
        "(batch_size, sequence_length, token_dim) alone: what else it makes of ids, a prompt does "
        "not have. Received: backbone=<XLNetBackbone>, whose 'content_query_embedding' "
        "has 2 outputs of shapes [(None, None, 8), (None, 1, 8)]",
    ),
}

# Exported backbones that take token ids beside something that is no text, or make no text's states.
NOT_TEXT = {
    "BLIP2Backbone": "images",
    "CLIPBackbone": "images",
    "FluxBackbone": "images",
    "MetaCLIP2Backbone": "images",
    "MoonshineBackbone": "audio",
    "PARSeqBackbone": "images",
    "PaliGemmaBackbone": "images",
    "SAM3PromptableConceptBackbone": "images",
    "SigLIPBackbone": "images",
    "StableDiffusion3Backbone": "images",
    "VideoPrismBackbone": "video",
    "WhisperBackbone": "audio",
}

# What TensorFlow and JAX run each time: segments, tokens and positions in one layer, ids that
# the mask is read off, a narrow embedding, learned and rotary positions, given positions, a head of
# the task's own, and encoder-decoders with one table and with two.
ONE_OF_EACH_KIND = (
    "ALBERT",
    "BERT",
    "ESM",
    "RoBERTa",
    "GPT-2",
    "Gemma 4",
    "Llama",
    "EdRec",
    "T5",
    "T5Gemma",
)
