"""Rows of adapters that were trained apart get, in one batch, what their own models predict."""

import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.bank.adapters import ROWS, assert_equal_to_own_models, backbone, models, own_inputs
from tests.marks import only_torch

# One of each on every backend: what families differ in, PyTorch shows.
_CASES = [
    ("bert", "SEQ_CLS"),
    ("gpt2", "CAUSAL_LM"),
    *(
        pytest.param(kind, task_type, marks=only_torch)
        for kind, task_type in [
            ("roberta", "SEQ_CLS"),
            ("llama", "SEQ_CLS"),
            ("albert", "SEQ_CLS"),
            ("esm", "SEQ_CLS"),
            ("bert", "TOKEN_CLS"),
            ("bert", "QUESTION_ANS"),
            ("bert", "FEATURE_EXTRACTION"),
            ("t5", "FEATURE_EXTRACTION"),
            ("llama", "CAUSAL_LM"),
            ("t5", "SEQ_2_SEQ_LM"),
            ("bart", "SEQ_2_SEQ_LM"),
        ]
    ),
]


@pytest.mark.parametrize(("kind", "task_type"), _CASES)
def test_a_mixed_batch(kind, task_type, tmp_path):
    of = backbone(kind)
    made = models(of, task_type, tmp_path)
    x = tiny.inputs(of, rows=len(ROWS))
    bank = keras_mpt.PromptBank(of, tmp_path)
    found = bank.predict({**x, "adapter": ROWS})
    assert_equal_to_own_models(found, made, x, ROWS)
    # Several batches, the last of which is not full.
    in_parts = bank.predict({**x, "adapter": ROWS}, batch_size=4)
    assert_equal_to_own_models(in_parts, made, x, ROWS)


@only_torch
@pytest.mark.parametrize("pooling", ["base", "mean", "last"])
def test_prompts_at_places_of_their_own(pooling, tmp_path):
    """Before the start token and behind it; under a head that looks at the first token too."""
    of = backbone("bert")
    configs = {"a": {"prompt_position": "before"}, "b": {"prompt_position": "after_start"}}
    made = models(of, "SEQ_CLS", tmp_path, "ab", configs, pooling=pooling)
    rows = ["a/0", "b/1", "a/1", "b/2"]
    x = tiny.inputs(of, rows=4)
    found = keras_mpt.PromptBank(of, tmp_path).predict({**x, "adapter": rows})
    assert_equal_to_own_models(found, made, x, rows)


@only_torch
def test_adapters_whose_heads_are_built_otherwise(tmp_path):
    of = backbone("bert")
    made = models(of, "SEQ_CLS", tmp_path, "a", pooling="mean")
    made |= models(of, "SEQ_CLS", tmp_path, "bc", pooling="base")
    rows = ["a/0", "b/1", "c", "a/1"]
    x = tiny.inputs(of, rows=4)
    found = keras_mpt.PromptBank(of, tmp_path).predict({**x, "adapter": rows})
    assert_equal_to_own_models(found, made, x, rows)


@only_torch
def test_one_prompt_for_an_encoder_and_two(tmp_path):
    of = backbone("t5")
    configs = {"a": {"num_transformer_submodules": 1}}
    made = models(of, "SEQ_2_SEQ_LM", tmp_path, "ab", configs)
    rows = ["a/0", "b/1", "a/1", "b/2"]
    x = tiny.inputs(of, rows=4)
    bank = keras_mpt.PromptBank(of, tmp_path)
    assert_equal_to_own_models(bank.predict({**x, "adapter": rows}), made, x, rows)
    scores = bank.score({**x, "adapter": rows}, [[5, 6], [7]])
    for i in range(len(rows)):
        model, own = own_inputs(made, x, rows, i)
        expected = model.score(own, [[5, 6], [7]])[0]
        np.testing.assert_allclose(scores[i], expected, atol=1e-5)


@only_torch
@pytest.mark.parametrize("padding", ["left", "both"])
def test_padding_anywhere(padding, tmp_path):
    of = backbone("llama")
    made = models(of, "CAUSAL_LM", tmp_path)
    x = tiny.inputs(of, rows=len(ROWS))
    x["padding_mask"][:, 0] = 0
    if padding == "left":
        x["padding_mask"][:, 1:] = 1
    found = keras_mpt.PromptBank(of, tmp_path).predict({**x, "adapter": ROWS})
    for i in range(len(ROWS)):
        model, own = own_inputs(made, x, ROWS, i)
        expected = model.predict(own, verbose=0)[0]
        seen = x["padding_mask"][i] != 0
        np.testing.assert_allclose(found[i][seen], expected[seen], atol=1e-5)


@only_torch
def test_rows_as_long_as_the_backbone_has_positions(tmp_path):
    """The bank makes room for its longest prompt; a row needs room for its own alone."""
    of = backbone("bert")
    made = models(of, "SEQ_CLS", tmp_path, "bd")
    x = tiny.inputs(of, rows=2, length=tiny.POSITIONS - 3)
    x["padding_mask"][:] = 1
    x["padding_mask"][1, -3:] = 0
    bank = keras_mpt.PromptBank(of, tmp_path)
    bank.load("b", tmp_path / "b")
    found = bank.predict({**x, "adapter": ["d", "b/1"]})
    own = {name: value[:1] for name, value in x.items()}
    np.testing.assert_allclose(
        found[0, :3], made["d"].predict({**own, "task_ids": [0]}, verbose=0)[0], atol=1e-5
    )
    x["padding_mask"][1, -3:] = 1
    with pytest.raises(ValueError, match=r"`token_ids` .* 26 tokens, .*'b/task_1' .*29 in row 1"):
        bank.predict({**x, "adapter": ["d", "b/1"]})
