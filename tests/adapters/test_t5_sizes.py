"""Sizes of a T5 that its weights do not have are refused before a model of them is made."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import keras_mpt
from tests.files.test_paths import T5
from tests.marks import only_torch

pytestmark = only_torch

BLOCK = "encoder.block.1.layer"
BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
SHAPES = {
    "shared.weight": (2, 2),
    f"{BLOCK}.0.SelfAttention.o.weight": (2, 4),
    f"{BLOCK}.1.DenseReluDense.wo.weight": (2, 2),
    BIAS: (32, 2),
}
HUGE = 10**9


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("vocab_size", f"`shared.weight` in .* should have shape \\({HUGE}, 2\\)"),
        ("d_model", f"`{BLOCK}.0.SelfAttention.o.weight` in .* should have shape \\({HUGE}, 4\\)"),
        ("d_ff", f"`{BLOCK}.1.DenseReluDense.wo.weight` in .* should have shape \\(2, {HUGE}\\)"),
        ("d_kv", "SelfAttention.o.weight` in .* should have shape"),
        ("num_heads", "SelfAttention.o.weight` in .* should have shape"),
        ("num_layers", r"without \['encoder.block.999999999.layer.0"),
        ("", "should hold the .* weights that its config.json asks for"),
    ],
)
def test_a_size_that_the_weights_do_not_have(size, words, tmp_path):
    config = {**T5, **({size: HUGE} if size else {})}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = {name: np.zeros(shape, "float32") for name, shape in SHAPES.items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=words):
        keras_mpt.t5_from_pretrained(tmp_path)
