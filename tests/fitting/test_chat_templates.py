"""A chat template's prompts have the tokens that transformers gives the whole chat."""

import re
from pathlib import Path

import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_torch

SPECIAL = ["<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def as_prompt():
    """The guide's function."""
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(def as_prompt.*?)```", guide, re.DOTALL)
    scope = {}
    exec(code, scope)
    return scope["as_prompt"]


@only_torch
def test_a_chat_has_transformers_tokens():
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    letters = [*SPECIAL, *"abcdehinorstu", "Ġ", "Ċ", "us"]
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("u", "s")]))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=SPECIAL[0], eos_token=SPECIAL[1], chat_template=TEMPLATE
    )
    ours = keras_hub.models.Llama3Tokenizer(
        vocabulary, ["u s"], bos_token=SPECIAL[0], eos_token=SPECIAL[1], misc_special_tokens=set()
    )
    assert [len(ours(token)) for token in SPECIAL] == [1, 1]
    preprocessor = keras_hub.models.Llama3CausalLMPreprocessor(ours, sequence_length=48)
    config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    model = keras_mpt.prompt_tune(tiny.backbone("llama"), config, preprocessor=preprocessor)
    prompt, response = as_prompt()("the sun", theirs), "is round"
    x, y, weight = model.prepared({"prompts": [prompt], "responses": [response]})
    chat = [{"role": "user", "content": "the sun"}, {"role": "assistant", "content": response}]
    whole = theirs.apply_chat_template(chat, tokenize=False).rstrip("\n")
    ids = theirs(whole, add_special_tokens=False)["input_ids"]
    np.testing.assert_array_equal(x["token_ids"][0, : len(ids) - 1], ids[:-1])
    counted = y[0][weight[0] > 0]
    np.testing.assert_array_equal(counted, [*ours(response), vocabulary[SPECIAL[1]]])
    with pytest.warns(UserWarning, match="^Prompts begin with the start token, and the prep"):
        model.prepared({"prompts": [SPECIAL[0] + prompt], "responses": [response]})
