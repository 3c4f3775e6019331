"""Generation against PEFT's, token for token: mixed tasks, beams, and PEFT's cache on and off."""

import json

import keras
import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests.parity.families import ALL_ON

peft = pytest.importorskip("peft", reason="PEFT is the reference here: pip install peft")
transformers = pytest.importorskip("transformers", reason="PEFT's models are transformers'")
torch = pytest.importorskip("torch", reason="PEFT runs on PyTorch")

VOCABULARY, GIVEN, NEW, TASK_IDS = 60, 5, 6, [0, 2, 1, 2]


def gpt2(path):
    """A small random GPT-2 in both libraries."""
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=None,
        eos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    base = transformers.GPT2LMHeadModel(config)
    base.save_pretrained(path)
    return base, keras_hub.models.GPT2Backbone.from_preset(str(path))


def t5(path):
    """A small random T5 in both libraries."""
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        decoder_start_token_id=0, eos_token_id=None, initializer_factor=3.0,
    )  # fmt: skip
    torch.manual_seed(0)
    base = transformers.T5ForConditionalGeneration(config)
    base.save_pretrained(path)
    return base, keras_mpt.t5_from_pretrained(path).backbone


def llama(path):
    """A small random Llama in both libraries, with two heads on one of keys and values."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=None, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(config)
    base.save_pretrained(path)
    return base, keras_hub.models.LlamaBackbone.from_preset(str(path))


def bart(path):
    """A small random BART in both libraries."""
    config = transformers.BartConfig(
        vocab_size=VOCABULARY, d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2, init_std=0.5,
        max_position_embeddings=64, decoder_start_token_id=0, bos_token_id=None, eos_token_id=None,
        pad_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    base = transformers.BartForConditionalGeneration(config)
    base.save_pretrained(path)
    # Published checkpoints have it, and keras-hub reads it.
    written = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**written, "num_hidden_layers": 2}))
    return base, keras_hub.models.BartBackbone.from_preset(str(path))


BASES = {"gpt2": gpt2, "llama": llama, "t5": t5, "bart": bart}
if keras.backend.backend() != ALL_ON:
    BASES = {"gpt2": gpt2}


@pytest.fixture(scope="module", params=BASES)
def both(request, tmp_path_factory):
    """A PEFT model with random prompts, and ours of its adapter."""
    path = tmp_path_factory.mktemp(request.param)
    base, backbone = BASES[request.param](path / "base")
    task_type = "SEQ_2_SEQ_LM" if request.param in ("t5", "bart") else "CAUSAL_LM"
    config = peft.MultitaskPromptTuningConfig(
        # With decoder prompts PEFT's own generation is another thing: it drops them.
        task_type=task_type, num_virtual_tokens=4, num_tasks=3, num_transformer_submodules=1,
    )  # fmt: skip
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.normal_()
    model.save_pretrained(path / "adapter")
    return model, keras_mpt.load_adapter(backbone, path / "adapter")


@pytest.mark.parametrize("num_beams", [1, 3], ids=["greedy", "beam"])
def test_tokens_are_peft_s(both, num_beams):
    model, ours = both
    ids = np.random.default_rng(0).integers(1, VOCABULARY, (4, GIVEN))
    settings = {"max_new_tokens": NEW, "do_sample": False, "num_beams": num_beams}
    # Beams of one length need no penalty; transformers divides by the length, keras-hub does not.
    settings |= {"length_penalty": 0.0} if num_beams > 1 else {}

    def theirs(task_ids, use_cache=True):
        return model.generate(
            input_ids=torch.tensor(ids),
            attention_mask=torch.ones(4, GIVEN, dtype=torch.long),
            task_ids=torch.tensor(task_ids),
            use_cache=use_cache,
            **settings,
        ).numpy()[:, -NEW:]

    sampler = "greedy" if num_beams == 1 else keras_hub.samplers.BeamSampler(num_beams=num_beams)
    ours.compile(sampler=sampler)
    mask = np.ones_like(ids)
    room, empty = np.zeros((4, NEW), int), np.zeros((4, NEW), int)
    if len(ours.splice.token_inputs) == 1:
        x = {"token_ids": np.concatenate([ids, room], 1)}
        x["padding_mask"] = np.concatenate([mask, empty], 1)
    else:
        start = np.zeros((4, 1), int)
        x = {"encoder_token_ids": ids, "encoder_padding_mask": mask}
        x["decoder_token_ids"] = np.concatenate([start, room], 1)
        x["decoder_padding_mask"] = np.concatenate([start + 1, empty], 1)
    made = ours.generate(x, task_ids=TASK_IDS, stop_token_ids=None)
    found = next(v for k, v in made.items() if k.endswith("token_ids"))[:, -NEW:]
    np.testing.assert_array_equal(found, theirs(TASK_IDS))
    np.testing.assert_array_equal(found, theirs(TASK_IDS, use_cache=False))
    assert (found != theirs([1, 0, 2, 0])).any()
