"""When a backbone falls apart into an encoder and a decoder."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mpt.splicing.encoder_once import encoder_once
from keras_mpt.splicing.splice import Splice
from tests import tiny


def two_stacks(more=False, masks=True):
    """Two embeddings and a decoder that attends to the encoder's; not keras-hub's.

    `more`: the decoder also reads what the encoder's states are made of.
    """
    ids, mask = {}, {}
    for side in ("encoder", "decoder"):
        ids[side] = keras.Input((None,), dtype="int32", name=f"{side}_token_ids")
        mask[side] = keras.Input((None,), dtype="int32", name=f"{side}_padding_mask")
    given = {t.name: t for t in (*ids.values(), *(mask.values() if masks else ()))}
    table = [keras.layers.Embedding(tiny.VOCABULARY, 8, name=side) for side in ids]
    embedded = {s: layer(ids[s]) for s, layer in zip(ids, table, strict=True)}
    states = keras.layers.Dense(8)(embedded["encoder"])
    attention = keras.layers.MultiHeadAttention(2, 4)
    attention_mask = mask["encoder"][:, None] if masks else None
    out = attention(embedded["decoder"], states, attention_mask=attention_mask)
    if more:
        out = attention(out, embedded["encoder"], attention_mask=attention_mask)
    if masks:
        decoder_mask = keras.layers.Reshape((-1, 1))(mask["decoder"])
        out = keras.layers.Multiply()([out, decoder_mask])
    return keras.Model(given, {"decoder_states": out, "encoder_states": states})


@pytest.mark.parametrize("at", ["before", "after_start"])
@pytest.mark.parametrize("submodules", [1, 2])
def test_the_halves_are_the_whole(submodules, at):
    backbone = two_stacks()
    splice = Splice(backbone, 3, submodules, at)
    halves = encoder_once(splice)
    x = {k: ops.convert_to_tensor(v) for k, v in tiny.inputs(backbone).items()}
    prompts = ops.convert_to_tensor(
        np.random.default_rng(0).normal(size=(4, submodules * 3, 8)).astype("float32")
    )
    expected = splice(x, prompts)
    encoded = halves.encode(x, prompts)
    found = halves.decode(x, encoded, prompts)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(
            *(ops.convert_to_numpy(v) for v in (found[name], value)), atol=1e-6
        )


def test_the_whole_can_still_be_saved(tmp_path):
    """Keras notes on a graph's inputs which model was made of them last."""
    backbone = two_stacks()
    assert encoder_once(Splice(backbone, 3)) is not None
    backbone.save(tmp_path / "whole.keras")
    again = keras.saving.load_model(tmp_path / "whole.keras")
    x = tiny.inputs(backbone)
    for name, value in backbone(x).items():
        np.testing.assert_array_equal(*(ops.convert_to_numpy(v) for v in (value, again(x)[name])))


def test_what_does_not_fall_apart():
    for backbone in (two_stacks(more=True), two_stacks(masks=False), tiny.backbone("gpt2")):
        assert encoder_once(Splice(backbone, 3)) is None
