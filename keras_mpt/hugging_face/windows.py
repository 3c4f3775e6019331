"""Which layers look no further back than a window, and what turns with it."""

from __future__ import annotations

from typing import Any

from keras_mpt import _keras
from keras_mpt.types import Backbone, Config

SLIDING, FULL = "sliding_attention", "full_attention"
_GEMMA_3 = ("gemma3", "gemma3_text")


def layers_with_window(kind: str, config: Config) -> list[bool] | None:
    """Whether each layer looks no further back than a window; `None` where a family has no choice.

    Args:
        kind: string. The checkpoint's `model_type`.
        config: its configuration.
    """
    layers = range(config.get("num_hidden_layers", 0))
    types, window = config.get("layer_types"), config.get("sliding_window")
    if kind in ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe"):
        if not config.get("use_sliding_window", False) or not window:
            return [False for _ in layers]
        if kind == "qwen3_moe":
            return [True for _ in layers]
        # Those of transformers' configurations, where a file does not list them.
        first = config.get("max_window_layers", 28)
        if types is None and kind == "qwen2_moe":
            return [i % 2 == 0 and i < first for i in layers]
        return [x == SLIDING for x in types] if types else [i >= first for i in layers]
    if kind in ("gemma2", "gpt_oss"):
        return [x == SLIDING for x in types] if types else [i % 2 == 0 for i in layers]
    if kind in _GEMMA_3:
        every = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
        return [x == SLIDING for x in types] if types else [(i + 1) % every > 0 for i in layers]
    return None


def set_windows(backbone: Backbone, kind: str, config: Config) -> None:
    """keras-hub knows which layers have a window by a pattern of its own, if at all."""
    types, window = layers_with_window(kind, config), config.get("sliding_window")
    if types is None:
        return
    for block, is_sliding in zip(backbone.transformer_layers, types, strict=True):
        for layer in _keras.sublayers(block):
            if not type(layer).__name__.endswith("Attention"):
                continue
            if "use_sliding_window_attention" in vars(layer):
                layer.use_sliding_window_attention = is_sliding
                layer.sliding_window_size = window or layer.sliding_window_size
            elif "sliding_window_size" in vars(layer):
                layer.sliding_window_size = window if is_sliding else None
            elif "sliding_window" in vars(layer):
                # GPT-OSS's counts the tokens before a token, transformers' with it.
                layer.sliding_window = window - 1 if is_sliding and window else None
            _gemma_3_rotary(layer, is_sliding, kind, config)


def _gemma_3_rotary(layer: Any, is_sliding: bool, kind: str, config: Config) -> None:
    """Wavelengths and scales of Gemma 3, which has two kinds of them."""
    if kind not in _GEMMA_3:
        return
    rope = config.get("rope_parameters") or {}
    part = rope.get(SLIDING if is_sliding else FULL, {})
    older = {"rope_theta": config.get("rope_local_base_freq", 1e4)}
    if not is_sliding:
        older = {"rope_theta": config.get("rope_theta", 1e6), **(config.get("rope_scaling") or {})}
    part = {**older, **part}
    layer.rope_layer.max_wavelength = float(part["rope_theta"])
    layer.rope_layer.scaling_factor = float(part.get("factor") or 1.0)
