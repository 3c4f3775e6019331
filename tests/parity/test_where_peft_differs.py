"""Where keras_mpt does otherwise than PEFT on purpose: what each of the two does."""

import copy

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.parity.families import ALL_ON
from tests.parity.measure import (
    LENGTH,
    RANKS,
    TASK_IDS,
    TASKS,
    TOLERANCE,
    data,
    difference,
    load_peft_adapter,
    our_inputs,
    peft,
    peft_logits,
    torch,
)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != ALL_ON, reason=f"PEFT's side knows no backend: tested on {ALL_ON}"
)
TEXT = "good or funny"
WORDS = ["[PAD]", "[UNK]", *TEXT.split()]


@pytest.fixture
def tokenizer_folder(tmp_path):
    """A Hugging Face tokenizer of one token per word."""
    tokenizers = pytest.importorskip("tokenizers", reason="a Hugging Face tokenizer is made here")
    from transformers import PreTrainedTokenizerFast

    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    return str(tmp_path)


def test_text_start(pair_of, tokenizer_folder):
    """PEFT's factors make of a text's embeddings 0.0004 of them; ours leave them as they are."""
    pair = pair_of("gpt2")
    settings = {
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": 3,
        "num_tasks": TASKS,
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": TEXT,
        "tokenizer_name_or_path": tokenizer_folder,
    }
    text = pair.base.get_input_embeddings().weight[2:5].detach().numpy()

    config = peft.MultitaskPromptTuningConfig(**settings)
    theirs = peft.get_peft_model(copy.deepcopy(pair.base), config)
    with torch.no_grad():
        prompts = theirs.get_prompt(TASKS, task_ids=torch.arange(TASKS)).numpy()
    assert np.abs(prompts).std() < 0.002 * text.std()
    # The text is in P, but no task's prompt has its direction either.
    cosine = (prompts * text).sum(-1) / np.linalg.norm(prompts, axis=-1)
    assert np.abs(cosine / np.linalg.norm(text, axis=-1)).max() < 0.9

    ours = keras_mpt.prompt_tune(
        pair.backbone, keras_mpt.MultitaskPromptTuningConfig(**settings)
    ).prompt(np.arange(TASKS))
    np.testing.assert_array_equal(ops.convert_to_numpy(ours), np.stack([text] * TASKS))


def test_training_a_loaded_adapter_on(pair_of):
    """PEFT refuses to load a prompt for training. Ours trains on."""
    pair = pair_of("gpt2")
    folder = pair.folder / "peft"
    with pytest.raises(ValueError, match="Cannot set a prompt learning adapter to trainable"):
        peft.PeftModel.from_pretrained(copy.deepcopy(pair.base), folder, is_trainable=True)

    ours, d = load_peft_adapter(pair), data()
    before = [ops.convert_to_numpy(v) for v in ours.trainable_variables]
    ours.fit({**our_inputs(pair, d), "task_ids": TASK_IDS}, d["labels"], verbose=0)
    after = [ops.convert_to_numpy(v) for v in ours.trainable_variables]
    assert len(after) == 3
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("task_type", ["FEATURE_EXTRACTION", "QUESTION_ANS"])
def test_task_ids_of_two_task_types(task_type, pair_of, tmp_path):
    """PEFT drops them and fails. Ours gives what transformers computes after PEFT's prompts."""
    from transformers import BertForQuestionAnswering

    pair, d = pair_of("bert"), data()
    base = copy.deepcopy(pair.base.bert)
    if task_type == "QUESTION_ANS":
        base = BertForQuestionAnswering(pair.base.config).eval()
        base.bert.load_state_dict(pair.base.bert.state_dict(), strict=False)
    config = peft.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=LENGTH, num_tasks=TASKS, num_ranks=RANKS
    )
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_()
    model.save_pretrained(tmp_path)
    ids, mask, task_ids = (torch.tensor(x) for x in (d["ids"], d["mask"], TASK_IDS))
    with pytest.raises(ValueError, match="task_ids cannot be None"):
        model(input_ids=ids, attention_mask=mask, task_ids=task_ids)

    with torch.no_grad():
        prompts = model.get_prompt(len(ids), task_ids=task_ids)
        longer = torch.cat([torch.ones(len(ids), LENGTH, dtype=mask.dtype), mask], dim=1)
        embedded = torch.cat([prompts, model.word_embeddings(ids)], dim=1)
        output = base(inputs_embeds=embedded, attention_mask=longer)
    ours = keras_mpt.load_adapter(pair.backbone, tmp_path)
    found = ours({**our_inputs(pair, d), "task_ids": TASK_IDS})
    if task_type == "QUESTION_ANS":
        expected = torch.stack([output.start_logits, output.end_logits], dim=-1)
        found = ops.convert_to_numpy(found).transpose(0, 2, 1)
    else:
        expected = output.last_hidden_state
        found = ops.convert_to_numpy(found["sequence_output"])
    assert difference(found, expected.numpy()[:, LENGTH:], d["mask"]) <= TOLERANCE


def test_what_a_pooler_reads(pair_of):
    """PEFT's BERT classifier pools the first prompt token. Ours leaves [CLS] where it was."""
    pair, d = pair_of("bert"), data()
    x = our_inputs(pair, d)
    bert, head = pair.model.base_model.bert, pair.model.base_model.classifier
    states = []
    hook = bert.encoder.register_forward_hook(lambda *args: states.append(args[-1][0]))
    with torch.no_grad():
        logits = peft_logits(pair, pair.model, d)
        pooled = {at: head(bert.pooler(states[0][:, at:])) for at in (0, LENGTH)}
    hook.remove()
    assert states[0].shape[1] == LENGTH + d["ids"].shape[1]
    torch.testing.assert_close(pooled[0], logits)
    assert (pooled[LENGTH] - logits).abs().max() > 0.1

    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=LENGTH, num_tasks=TASKS)
    ours = keras_mpt.models.PromptTunedBackbone(pair.backbone, config)
    assert ours.config.prompt_position == "after_start"
    outputs = ours({**x, "task_ids": TASK_IDS})
    start = pair.backbone.pooled_dense(outputs["sequence_output"][:, 0])
    start, found = (ops.convert_to_numpy(t) for t in (start, outputs["pooled_output"]))
    np.testing.assert_allclose(found, start, atol=TOLERANCE)


def test_decoder_prompts_in_generation(pair_of):
    """PEFT trains a prompt for the decoder (M = 2) and generates without it. We generate with it.

    The decoder's half of P is changed: PEFT's logits change, what it generates does not.
    """
    pair, d = pair_of("bart"), data()
    changed = copy.deepcopy(pair.model)
    with torch.no_grad():
        changed.prompt_encoder["default"].embedding.weight[LENGTH:] *= -3
    before, after = (peft_logits(pair, m, d).detach() for m in (pair.model, changed))
    assert (before - after).abs().max() > 0.1
    for x, y in zip(_scores(pair.model, d), _scores(changed, d), strict=True):
        assert torch.equal(x, y)
    with torch.no_grad():
        changed.prompt_encoder["default"].embedding.weight[:LENGTH] *= -3
    assert not torch.equal(_scores(pair.model, d)[0], _scores(changed, d)[0])

    ours = load_peft_adapter(pair)
    ours.compile(sampler="greedy")
    x = our_inputs(pair, d)
    x["decoder_padding_mask"] = np.zeros_like(d["mask"])
    x["decoder_padding_mask"][:, 0] = 1  # One token is given, the others are generated.
    before = ours.generate(x, task_ids=TASK_IDS, stop_token_ids=None)
    variable = ours.prompt.named_weights()["prompt_embeddings"]
    values = ops.convert_to_numpy(variable)
    variable.assign(np.concatenate([values[:LENGTH], -3 * values[LENGTH:]]))
    after = ours.generate(x, task_ids=TASK_IDS, stop_token_ids=None)
    assert (before["decoder_token_ids"] != after["decoder_token_ids"]).any()


def _scores(model, d):
    """PEFT's logits of each token that it generates."""
    ids, mask = torch.tensor(d["ids"]), torch.tensor(d["mask"])
    return model.generate(
        input_ids=ids,
        attention_mask=mask,
        task_ids=torch.tensor(TASK_IDS),
        max_new_tokens=3,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    ).scores
