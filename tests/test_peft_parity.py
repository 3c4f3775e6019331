"""Adapters to and from PEFT, with PEFT running beside us: same weights, same logits."""

import json
import warnings

import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt

peft = pytest.importorskip("peft", reason="PEFT is the reference here: pip install peft")
transformers = pytest.importorskip("transformers", reason="PEFT's models are transformers'")
torch = pytest.importorskip("torch", reason="PEFT runs on PyTorch")

VOCABULARY, LENGTH, TASKS, ROWS, TOKENS = 60, 5, 3, 4, 7
TASK_IDS = [0, 2, 1, 2]


def gpt2():
    """A small random GPT-2 of transformers, and keras-hub's class for it."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), keras_hub.models.GPT2Backbone


def llama():
    """A small random Llama."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config), keras_hub.models.LlamaBackbone


def bert():
    """A small random BERT classifier, with the tanh GELU that keras-hub's BERT computes."""
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, hidden_act="gelu_new", num_labels=3,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config), keras_hub.models.BertBackbone


CASES = {"gpt2": (gpt2, "CAUSAL_LM"), "llama": (llama, "CAUSAL_LM"), "bert": (bert, "SEQ_CLS")}


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """A PEFT model with random prompts, its saved adapter, and our backbone of the same weights."""
    make, task_type = CASES[request.param]
    torch.manual_seed(0)
    base, backbone_class = make()
    base.save_pretrained(tmp_path / "base")
    config = peft.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=LENGTH, num_tasks=TASKS, num_ranks=2
    )
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.normal_()
    model.save_pretrained(tmp_path / "peft")
    return model, backbone_class.from_preset(str(tmp_path / "base")), tmp_path


def data():
    """Token ids and a mask with padding on the right."""
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (ROWS, TOKENS))
    mask = np.ones_like(ids)
    mask[1, 4:] = 0
    return ids, mask


def peft_logits(model, ids, mask):
    """PEFT's logits, of user positions where it gives one per position."""
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            task_ids=torch.tensor(TASK_IDS),
        ).logits.numpy()
    return output if output.ndim == 2 else output[:, LENGTH:]


def our_logits(model, ids, mask):
    """Ours, from a direct call."""
    x = {"token_ids": ids, "padding_mask": mask, "task_ids": TASK_IDS}
    return ops.convert_to_numpy(model(x))


def assert_equal_logits(ours, theirs, mask):
    """Within 1e-5 of their scale, where the user's tokens are."""
    if ours.ndim == 3:
        ours, theirs = ours[mask == 1], theirs[mask == 1]
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_adapter_written_by_peft_gives_its_logits(case):
    model, backbone, path = case
    ids, mask = data()
    ours = keras_mpt.load_adapter(backbone, path / "peft")
    assert ours.config.prompt_position == "before"
    assert_equal_logits(our_logits(ours, ids, mask), peft_logits(model, ids, mask), mask)


def test_adapter_written_by_us_opens_in_peft_with_our_logits(case):
    model, backbone, path = case
    ids, mask = data()
    ours = keras_mpt.load_adapter(backbone, path / "peft")
    rng = np.random.default_rng(1)
    for variable in ours.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    ours.save_adapter(path / "ours")
    base = type(model.get_base_model()).from_pretrained(path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # transformers warns of itself whenever PEFT wraps a model, whatever the adapter.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        opened = peft.PeftModel.from_pretrained(base, path / "ours").eval()
    assert_equal_logits(our_logits(ours, ids, mask), peft_logits(opened, ids, mask), mask)


def test_loading_and_saving_again_keeps_peft_s_weights_and_config(case):
    _, backbone, path = case
    keras_mpt.load_adapter(backbone, path / "peft").save_adapter(path / "again")
    before, after = (keras_mpt.read_state_dict(path / name) for name in ("peft", "again"))
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    before, after = (
        json.loads((path / name / "adapter_config.json").read_text()) for name in ("peft", "again")
    )
    assert after == before


def test_loaded_adapter_trains_on(case):
    model, backbone, path = case
    ids, mask = data()
    ours = keras_mpt.load_adapter(backbone, path / "peft")
    before = [ops.convert_to_numpy(v) for v in ours.trainable_variables]
    x = {"token_ids": ids, "padding_mask": mask, "task_ids": TASK_IDS}
    ours.fit(x, ids if our_logits(ours, ids, mask).ndim == 3 else ids[:, 0] % 3, verbose=0)
    after = [ops.convert_to_numpy(v) for v in ours.trainable_variables]
    assert len(after) >= 3
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


def test_a_source_start_does_not_follow_the_adapter_into_peft(tmp_path):
    """PEFT runs a source start again when it opens an adapter; ours must not name a lost file."""
    base, backbone_class = gpt2()
    base.save_pretrained(tmp_path / "base")
    backbone = backbone_class.from_preset(str(tmp_path / "base"))
    common = {"task_type": "CAUSAL_LM", "num_virtual_tokens": LENGTH}
    source = keras_mpt.prompt_tune(
        backbone, keras_mpt.MultitaskPromptTuningConfig(num_tasks=2, **common)
    )
    source.save_adapter(tmp_path / "source")
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_tasks=3,
        prompt_tuning_init="AVERAGE_SOURCE_TASKS",
        prompt_tuning_init_state_dict_path=str(tmp_path / "source"),
        **common,
    )
    keras_mpt.prompt_tune(backbone, config).save_adapter(tmp_path / "target")
    for file in (tmp_path / "source").iterdir():
        file.unlink()
    opened = peft.PeftModel.from_pretrained(base, tmp_path / "target")
    found = opened.prompt_encoder["default"].embedding.weight.detach().numpy()
    np.testing.assert_array_equal(found, source.prompt.state_dict()["prompt_embeddings"])
