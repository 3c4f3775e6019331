"""A prompt made of real token embeddings must give what those tokens give, wherever it stands.

The reference is the backbone itself on the longer sequence, so nothing of the splice is in it.
`tests/families/` shows the same of every family, with the prompt where it stands by default and on
both sides of an encoder-decoder.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_mpt.splicing.insert import drop, insert, insert_constant, insert_first, insert_positions
from keras_mpt.splicing.positions import default_prompt_position
from keras_mpt.splicing.splice import Splice
from tests import tiny

LENGTH = 3


def flat(outputs):
    """The outputs as NumPy arrays."""
    return [ops.convert_to_numpy(x) for x in keras.tree.flatten(outputs)]


def with_tokens(splice, x, prompt_ids):
    """The backbone's inputs with the prompt's tokens written into the ids: what a user would do."""
    length, longer = splice.num_virtual_tokens, dict(x)

    def put(old, new):
        return np.concatenate([old[:, : splice.at], new, old[:, splice.at :]], axis=1)

    for i, token_input in enumerate(splice.token_inputs[: splice.num_transformer_submodules]):
        rows = len(x[token_input.name])
        ids = prompt_ids[i * length : (i + 1) * length]
        longer[token_input.name] = put(x[token_input.name], np.tile(ids, (rows, 1)))
        if token_input.mask_name:
            longer[token_input.mask_name] = put(x[token_input.mask_name], np.ones((rows, length)))
        for name in token_input.other_names:
            longer[name] = put(x[name], np.zeros((rows, length)))
    return longer


@pytest.mark.parametrize(
    ("kind", "submodules", "position"),
    [
        ("bert", 1, "before"),
        ("roberta", 1, "before"),
        ("esm", 1, "before"),
        ("t5", 1, "before"),
        ("gpt2", 1, "after_start"),
    ],
)
def test_prompt_of_token_embeddings_equals_those_tokens(kind, submodules, position):
    backbone = tiny.backbone(kind)
    splice = Splice(backbone, LENGTH, submodules, position)
    x = tiny.inputs(backbone)
    ids = np.random.default_rng(1).integers(2, tiny.VOCABULARY, submodules * LENGTH)
    prompt = ops.broadcast_to(
        splice.embed_tokens(ids)[None], (4, submodules * LENGTH, splice.token_dim)
    )
    spliced = splice(x, prompt)
    expected = backbone(with_tokens(splice, x, ids))
    for ours, theirs in zip(flat(spliced), flat(expected), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    user = [i for i in range(6 + LENGTH) if not splice.at <= i < splice.at + LENGTH]
    for ours, full in zip(flat(splice.user_positions(spliced)), flat(expected), strict=True):
        prompted = full.ndim == 3 and full.shape[1] == 6 + LENGTH
        np.testing.assert_array_equal(ours, full[:, user] if prompted else full)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_no_variable_is_copied(kind):
    backbone = tiny.backbone(kind)
    splice = Splice(backbone, LENGTH)
    known = {id(v) for v in backbone.variables}
    assert all(id(v) in known for v in splice.graph.rest.variables)


def test_prompt_changes_user_positions():
    backbone = tiny.backbone("gpt2")
    splice, x = Splice(backbone, LENGTH), tiny.inputs(backbone)
    prompts = np.random.default_rng(0).normal(size=(2, 4, LENGTH, tiny.WIDTH)).astype("float32")
    outputs = [flat(splice.user_positions(splice(x, prompt)))[0] for prompt in prompts]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


def test_facts_of_the_backbone():
    facts = {
        kind: (s.token_dim, s.vocabulary_size, s.max_sequence_length)
        for kind in ("bert", "roberta", "albert", "llama")
        for s in [Splice(tiny.backbone(kind), LENGTH)]
    }
    assert facts == {
        "bert": (tiny.WIDTH, tiny.VOCABULARY, tiny.POSITIONS),
        "roberta": (tiny.WIDTH, tiny.VOCABULARY, tiny.POSITIONS),
        "albert": (8, tiny.VOCABULARY, 512),
        "llama": (tiny.WIDTH, tiny.VOCABULARY, None),
    }


def test_default_positions():
    found = {kind: default_prompt_position(tiny.backbone(kind)) for kind in (*tiny.KINDS, "bart")}
    encoders = {"bert", "roberta", "albert", "esm"}
    assert found == {k: "after_start" if k in encoders else "before" for k in found}


class Placed(keras.layers.Layer):
    """Embeds tokens with their positions, as no splice could know."""

    def build(self, shape):
        self.table = self.add_weight(shape=(4, 2))

    def call(self, ids):
        places = ops.arange(ids.shape[1] or 2, dtype="float32")
        return ops.take(self.table, ids, axis=0) + places[:, None]

    def compute_output_shape(self, shape):
        return (*shape, 2)


def test_refused_backbones():
    x = keras.Input((None,), dtype="int32", name="words")
    no_ids = keras.Model(x, keras.layers.Embedding(4, 2)(x), name="no_ids")
    with pytest.raises(ValueError, match="`backbone` should have an input named 'token_ids'"):
        Splice(no_ids, 2)
    x = keras.Input((None,), dtype="int32", name="token_ids")
    first, second = keras.layers.Embedding(4, 2), keras.layers.Embedding(4, 2)
    two = keras.Model(x, first(x) + second(x), name="two")
    with pytest.raises(ValueError, match="look 'token_ids' up in exactly one layer with weights"):
        Splice(two, 2)
    # The second table gets numbers made of the ids.
    made = keras.Model(x, first(x) + second(ops.where(x > 2, 0, x)), name="made")
    with pytest.raises(ValueError, match="look 'token_ids' up in exactly one layer with weights"):
        Splice(made, 2)
    # The only table does not get the ids as they come in.
    shifted = keras.Model(x, keras.layers.Embedding(9, 2)(x + 1), name="shifted")
    with pytest.raises(ValueError, match="as they come in: a prompt has no ids"):
        Splice(shifted, 2)
    image = keras.Input((4, 4, 3), name="image")
    seen = keras.Model([x, image], first(x) + ops.mean(image), name="seen")
    with pytest.raises(ValueError, match=r"take text alone.*<Functional> with inputs \['image'\]"):
        Splice(seen, 2)
    with pytest.raises(ValueError, match="should embed 'token_ids' without their positions"):
        Splice(keras.Model(x, Placed()(x)), 2)
    encoder, decoder = (
        keras.Input((None,), dtype="int32", name=f"{side}_token_ids")
        for side in ("encoder", "decoder")
    )
    sides = [keras.layers.Embedding(4, 2)(encoder) * 2, keras.layers.Embedding(4, 3)(decoder) * 2]
    with pytest.raises(ValueError, match=r"decoder differ in width: \[2, 3\]"):
        Splice(keras.Model([encoder, decoder], sides), 2, num_transformer_submodules=2)
    with pytest.raises(ValueError, match="`num_transformer_submodules` should be at most"):
        Splice(tiny.backbone("bert"), 2, num_transformer_submodules=2)


@pytest.mark.parametrize("at", [0, 1])
def test_insert_and_drop_by_hand(at):
    sequence, prompt = np.array([[1, 2, 3]]), np.array([[8, 9]])
    longer = ops.convert_to_numpy(insert(sequence, prompt, at))
    assert longer.tolist() == [[[8, 9, 1, 2, 3]], [[1, 8, 9, 2, 3]]][at]
    assert ops.convert_to_numpy(drop(longer, 2, at)).tolist() == [[1, 2, 3]]
    constant = ops.convert_to_numpy(insert_constant(sequence, 7, 2, at))
    assert constant.tolist() == [[[7, 7, 1, 2, 3]], [[1, 7, 7, 2, 3]]][at]
    positions = ops.convert_to_numpy(insert_positions(ops.convert_to_tensor([[5, 6, 7]]), 2, at))
    assert positions.tolist() == [[5, 6, 7, 8, 9]]
    first = ops.convert_to_numpy(insert_first(sequence, 2, at))
    assert first.tolist() == [[1, 1, 1, 2, 3]]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only its graphs have lengths that are unknown"
)
def test_positions_where_a_graph_does_not_know_the_length():
    import tensorflow as tf

    from tests.families.configurations import FAMILIES

    backbone = FAMILIES["Gemma 4"].build()
    splice = Splice(backbone, LENGTH)
    x = {name: tiny.inputs(backbone)[name] for name in ("token_ids", "padding_mask")}
    prompts = np.random.default_rng(0).normal(size=(4, LENGTH, splice.token_dim)).astype("float32")
    unknown = tf.TensorSpec((None, None), tf.int32)

    @tf.function(input_signature=[unknown, unknown])
    def graph(token_ids, padding_mask):
        return splice({"token_ids": token_ids, "padding_mask": padding_mask}, prompts)

    found, expected = flat(graph(**x))[0], flat(splice(x, prompts))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
