"""T5 folders of transformers read into keras-hub, beside transformers and PEFT running on them."""

import json
import pickle
import warnings

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops
from safetensors.numpy import load_file, save_file

import keras_mpt

transformers = pytest.importorskip("transformers", reason="transformers is the reference here")
torch = pytest.importorskip("torch", reason="transformers runs on PyTorch")

VOCABULARY, WIDTH, ROWS, ENCODER, DECODER = 40, 16, 3, 7, 5
CONFIG, SAFETENSORS, BIN = "config.json", "model.safetensors", "pytorch_model.bin"
# `head_dim` is not WIDTH / heads, and the width no power of 4, whose root is exact.
SIZES = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "d_kv": 5,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
}

# Arguments of the config, whether the head has weights of its own, what config.json says else.
# "1.1" is written as transformers did before version 5; "unscaled" and "both" as it does since.
VARIANTS = {
    "1.0": ("T5", {}, False, {}),
    "1.1": (
        "T5",
        {"feed_forward_proj": "gated-gelu"},
        True,
        {"tie_word_embeddings": False, "scale_decoder_outputs": None},
    ),
    "unscaled": (
        "T5",
        {"feed_forward_proj": "gated-silu", "tie_word_embeddings": False},
        False,
        {},
    ),
    "both": ("T5", {"feed_forward_proj": "gelu", "d_model": 12}, True, {}),
    "mt5": ("MT5", {}, False, {}),
    "mt5_head": ("MT5", {}, True, {"tie_word_embeddings": False}),
}


def write(folder, kind="T5", arguments=None, own_head=False, changes=None):
    """A small random T5 as transformers saves it."""
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **(arguments or {})})
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    torch.manual_seed(0)
    if own_head:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(0.5, 1.5) if weight.ndim == 1 else weight.normal_(std=0.4)
    model.save_pretrained(folder)
    change_config(folder, **(changes or {}))
    return folder


def change_config(folder, **changes):
    values = json.loads((folder / CONFIG).read_text()) | changes
    text = json.dumps({k: v for k, v in values.items() if v is not None})
    (folder / CONFIG).write_text(text)


def change_weights(folder, **changes):
    state = load_file(folder / SAFETENSORS) | changes
    state = {k: v for k, v in state.items() if v is not None}
    save_file(state, folder / SAFETENSORS, {"format": "pt"})


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "t5")


def data(encoder=ENCODER, decoder=DECODER):
    """Random ids on both sides; the second row is padded on the right."""
    rng, x = np.random.default_rng(0), {}
    for side, length in (("encoder", encoder), ("decoder", decoder)):
        mask = np.ones((ROWS, length), "int32")
        mask[1, length // 2 :] = 0
        x[f"{side}_token_ids"] = rng.integers(2, VOCABULARY, (ROWS, length)).astype("int32") * mask
        x[f"{side}_padding_mask"] = mask
    return x


def theirs(folder, x):
    """transformers' encoder states and logits, from the folder."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    names = {
        "encoder_token_ids": "input_ids",
        "encoder_padding_mask": "attention_mask",
        "decoder_token_ids": "decoder_input_ids",
        "decoder_padding_mask": "decoder_attention_mask",
    }
    with torch.no_grad():
        output = model(**{names[k]: torch.tensor(v).long() for k, v in x.items()})
    return output.encoder_last_hidden_state.numpy(), output.logits.numpy()


def ours(model, x):
    states = ops.convert_to_numpy(model.backbone(x)["encoder_sequence_output"])
    return states, ops.convert_to_numpy(model(x))


def error(found, wanted, mask):
    """The largest error at the users' tokens, in units of the largest value there."""
    found, wanted = found[mask == 1], wanted[mask == 1]
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def assert_equal_outputs(model, folder, x, tolerance=1e-5):
    pairs = zip(ours(model, x), theirs(folder, x), ("encoder", "decoder"), strict=True)
    for found, wanted, side in pairs:
        e=error(found, wanted, x[f"{side}_padding_mask"])
        print("ERR",folder.name, side,e)
        assert e<= tolerance, side


@pytest.mark.parametrize("name", VARIANTS)
def test_states_and_logits_are_transformers_s(name, tmp_path):
    folder = write(tmp_path / name, *VARIANTS[name])
    model = keras_mpt.t5_from_pretrained(folder)
    assert isinstance(model, keras_hub.models.T5Seq2SeqLM)
    assert model.preprocessor is None
    assert_equal_outputs(model, folder, data())


def test_far_positions(folder):
    """Past 128 tokens all distances share a bucket; before, each border must be transformers'."""
    assert_equal_outputs(keras_mpt.t5_from_pretrained(folder), folder, data(150, 150))
