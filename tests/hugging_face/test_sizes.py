"""Sizes that a checkpoint's files do not have are refused before a backbone of them is made."""

import json

import pytest

import keras_mpt
from tests.hugging_face.test_backbone import saved
from tests.marks import only_torch

pytestmark = only_torch


@pytest.mark.parametrize(
    ("name", "field", "argument"),
    [
        ("llama", "vocab_size", "vocabulary_size"),
        ("llama", "num_hidden_layers", "num_layers"),
        ("llama", "intermediate_size", "intermediate_dim"),
        ("bert", "max_position_embeddings", "max_sequence_length"),
        ("gpt2", "n_embd", "hidden_dim"),
        ("gpt2", "n_layer", "num_layers"),
    ],
)
def test_a_size_of_another_world(name, field, argument, tmp_path):
    saved(tmp_path, name)
    keras_mpt.backbone_from_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: 10**11}))
    message = f"`{argument}` should be a size that the weights in the folder have. Received: "
    with pytest.raises(ValueError, match=message):
        keras_mpt.backbone_from_pretrained(tmp_path)
