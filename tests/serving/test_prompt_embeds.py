"""The whole input as embeddings: text, padding, positions and what is refused."""

import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.families.configurations import FAMILIES

L = 3


def tuned(kind="gpt2", preprocessor=None, **fields):
    fields = {"task_type": "CAUSAL_LM", "num_virtual_tokens": L, "num_tasks": 3, **fields}
    config = keras_mpt.MultitaskPromptTuningConfig(task_init="normal", **fields)
    return keras_mpt.prompt_tune(tiny.backbone(kind), config, preprocessor=preprocessor)


def letters():
    tokens = [*"abcdefgh", "ab", "<|endoftext|>"]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=ids, merges=["a b"])
    return keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=8)


def tokens(model, rows):
    table = ops.convert_to_numpy(model.backbone.token_embedding.embeddings)
    return [table[row] for row in rows]


def test_rows_of_text_are_what_generate_reads():
    model = tuned(preprocessor=letters())
    embeds = model.prompt_embeds(["abc", "h"], task_ids=["task_2", "task_0"])
    end = 9  # GPT-2's start token too.
    wanted = tokens(model, [[end, 8, 2], [end, 7]])
    for row, task, own in zip(embeds, (2, 0), wanted, strict=True):
        prompt = ops.convert_to_numpy(model.prompt(task))[0]
        np.testing.assert_array_equal(row, np.concatenate([prompt, own]))
    np.testing.assert_array_equal(model.prompt_embeds("h", task_ids=0)[0], embeds[1])
    among = model.prompt_embeds({"text": ["abc", "h"], "task_ids": [2, 0]})
    np.testing.assert_array_equal(among[0], embeds[0])


def test_a_prompt_after_the_start_token_and_one_without_tasks():
    model = tuned(prompt_position="after_start")
    x = {**tiny.inputs(model.backbone, rows=2), "task_ids": 1}
    for row, ids, length in zip(model.prompt_embeds(x), x["token_ids"], (6, 4), strict=True):
        (own,) = tokens(model, [ids[:length]])
        prompt = ops.convert_to_numpy(model.prompt(1))[0]
        np.testing.assert_array_equal(row, np.concatenate([own[:1], prompt, own[1:]]))
    folded = model.fold(1)
    del x["task_ids"]
    again = folded.prompt_embeds(x)
    np.testing.assert_array_equal(again[0][1 : L + 1], prompt)


def test_wrong_inputs():
    model = tuned()
    x = tiny.inputs(model.backbone, rows=2)
    with pytest.raises(ValueError, match="`scaled` should be True or False. Received: scaled=1"):
        model.prompt_embeds(x, task_ids=0, scaled=1)
    with pytest.raises(ValueError, match="`inputs` should be a dict of the backbone's inputs wh"):
        model.prompt_embeds("text", task_ids=0)
    with pytest.raises(ValueError, match="`task_ids` should be given: one of this model's 3 tasks"):
        model.prompt_embeds(x)
    with pytest.raises(ValueError, match=r"`task_ids` should lie in \[0, 3\)"):
        model.prompt_embeds(x, task_ids=3)
    with pytest.raises(ValueError, match="`padding_mask` should be 1 at each row's tokens, then 0"):
        model.prompt_embeds({**x, "padding_mask": x["padding_mask"][:, ::-1]}, task_ids=0)
    with pytest.raises(ValueError, match=r"`token_ids` should have token ids in \[0, 50\)"):
        model.prompt_embeds({**x, "token_ids": x["token_ids"] + 50}, task_ids=0)
    model.prompt.prompt_embeddings.assign(ops.full((L, tiny.WIDTH), np.nan))
    with pytest.raises(
        ValueError, match="`prompt` should be finite for another program to take it"
    ):
        model.prompt_embeds(x, task_ids=0)


def test_positions_of_ones_own_are_refused():
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=3)
    model = keras_mpt.models.PromptTunedCausalLM(FAMILIES["Gemma 4"].build(), config)
    x = {"token_ids": np.full((1, 4), 5), "padding_mask": np.ones((1, 4), "int32")}
    assert model.prompt_embeds(x)[0].shape[0] == 7
    with pytest.raises(ValueError, match=r"`inputs` should leave out \['position_ids'\]: a server"):
        model.prompt_embeds({**x, "position_ids": np.arange(4)[None]})


def test_other_models_have_none():
    for name in ("PromptTunedSeq2SeqLM", "PromptTunedTextClassifier", "PromptTunedMaskedLM"):
        assert not hasattr(getattr(keras_mpt.models, name), "prompt_embeds")
