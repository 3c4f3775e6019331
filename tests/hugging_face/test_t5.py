"""T5 folders of transformers read into keras-hub, beside transformers and PEFT running on them."""

import functools
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
from keras_mpt.hugging_face.t5 import read_weights
from tests.files.attack import Attack
from tests.marks import IS_EAGER, only_eager, slow_on_jax

transformers = pytest.importorskip("transformers", reason="transformers is the reference here")
torch = pytest.importorskip("torch", reason="transformers runs on PyTorch")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="it needs PyTorch")

VOCABULARY, WIDTH, ROWS, PROMPT = 40, 12, 4, 3
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
CONFIG, SAFETENSORS, BIN = "config.json", "model.safetensors", "pytorch_model.bin"
# `d_kv` is not d_model / num_heads, and the root of d_model is not exact.
SIZES = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "d_kv": 5,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}

# Arguments of the config, whether the head has weights of its own, what config.json says else.
# "1.1" is as transformers wrote it before version 5; since then it says "tied" of every T5.
VARIANTS = {
    "1.0": ("T5", {"num_layers": 2}, False, {}),
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
    "scaled_head": ("T5", {"feed_forward_proj": "gelu"}, True, {}),
    "mt5": ("MT5", {}, True, {}),
}


def write(folder, kind="T5", arguments=None, own_head=False, changes=None):
    """A small random T5 as transformers saves it."""
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **(arguments or {})})
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    torch.manual_seed(0)
    if own_head:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        # Small enough that float32 is good to 1e-5 here, but for the position biases: T5 divides
        # no attention score, and transformers itself is 7e-5 off its float64 with twice as much.
        for name, weight in model.named_parameters():
            std = 1 if "relative_attention_bias" in name else 0.2
            weight.uniform_(0.5, 1.5) if weight.ndim == 1 else weight.normal_(std=std)
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


@pytest.fixture(scope="module")
def variant(tmp_path_factory):
    """A variant's folder and our model of it, each made once."""

    @functools.cache
    def made(name):
        folder = write(tmp_path_factory.mktemp(name), *VARIANTS[name])
        return folder, keras_mpt.t5_from_pretrained(folder)

    return made


def data(encoder=150, decoder=140):
    """Random ids on both sides; the second row is padded on the right.

    Past 128 tokens all distances share a position bias. Before, they share it by their logarithm,
    so each border must be where transformers has it, on every backend.
    """
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
    outputs = model.backbone(x)["encoder_sequence_output"], model(x)
    return tuple(ops.convert_to_numpy(o) for o in outputs)


def error(found, wanted, mask):
    """The largest error at the users' tokens, in units of the largest value there."""
    found, wanted = found[mask == 1], wanted[mask == 1]
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def assert_equal_outputs(model, folder, x):
    pairs = zip(ours(model, x), theirs(folder, x), ("encoder", "decoder"), strict=True)
    for found, wanted, side in pairs:
        assert error(found, wanted, x[f"{side}_padding_mask"]) <= 1e-5, side


def assert_equal_weights(model, other):
    for found, wanted in zip(model.backbone.weights, other.backbone.weights, strict=True):
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (found, wanted)), found.path)


@slow_on_jax
@pytest.mark.parametrize("name", VARIANTS if IS_EAGER else ["1.1"])
def test_states_and_logits_are_transformers_s(name, variant):
    folder, model = variant(name)
    assert isinstance(model, keras_hub.models.T5Seq2SeqLM)
    assert model.preprocessor is None
    assert_equal_outputs(model, folder, data())


@only_eager
def test_half_precision_files(folder):
    """A file's values are kept as they are; what the model computes in is the caller's choice."""
    state = {k: torch.tensor(v) for k, v in load_file(folder / SAFETENSORS).items()}
    state = {k: v.half() if "layer_norm" in k else v.bfloat16() for k, v in state.items()}
    safetensors_torch.save_file(state, folder / SAFETENSORS, {"format": "pt"})
    found = keras_mpt.t5_from_pretrained(folder, dtype="mixed_bfloat16").backbone
    assert found.compute_dtype == "bfloat16"
    layer = found.encoder_transformer_layers[0]
    for variable, name in (
        (found.token_embedding.embeddings, "shared"),
        (layer.self_attention_layer_norm.weight, "encoder.block.0.layer.0.layer_norm"),
    ):
        assert keras.backend.standardize_dtype(variable.dtype) == "float32"
        wanted = state[f"{name}.weight"].float().numpy()
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), wanted)


@only_eager
@pytest.mark.parametrize("kind", ["shards", "bin", "bin_shards"])
def test_weights_in_one_file_or_in_shards(kind, folder):
    wanted = load_file(folder / SAFETENSORS)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    (folder / SAFETENSORS).unlink()
    if kind == "shards":
        model.save_pretrained(folder, max_shard_size="5KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 2
    else:
        # A .bin has the table under all of its names.
        state = model.state_dict()
        wanted |= {k: v.numpy() for k, v in state.items() if k not in wanted}
        torch.save(state, folder / BIN) if kind == "bin" else torch_shards(state, folder)
    found = read_weights(folder)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


@only_eager
def test_names_of_the_token_embedding(folder):
    """Which copies of it a file has depends on what wrote it."""
    wanted = keras_mpt.t5_from_pretrained(folder)
    table = load_file(folder / SAFETENSORS)["shared.weight"]
    encoder, decoder, head = (
        f"{n}.weight" for n in ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head")
    )
    unused = {UNUSED: np.ones((32, 2), "float32")}  # The first T5 files hold it; none reads it.
    for copies in (
        {"shared.weight": None, encoder: table, decoder: table, head: table, **unused},
        {encoder: None, decoder: None},
    ):
        change_weights(folder, **copies)
        assert_equal_weights(keras_mpt.t5_from_pretrained(folder), wanted)


def torch_shards(state, folder):
    """Two .bin shards with an index, as older versions of transformers wrote them."""
    where = {name: f"pytorch_model-{i % 2}.bin" for i, name in enumerate(state)}
    for file in set(where.values()):
        torch.save({k: v for k, v in state.items() if where[k] == file}, folder / file)
    (folder / f"{BIN}.index.json").write_text(json.dumps({"weight_map": where}))


@only_eager
def test_tokenizer(folder):
    sentencepiece = pytest.importorskip("sentencepiece", reason="it trains the tokenizer here")
    with open(folder / "spiece.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["the quick brown fox", "a slow red dog"]), model_writer=file,
            vocab_size=VOCABULARY - 10, bos_id=-1, pad_id=0, eos_id=1, unk_id=2, pad_piece="<pad>",
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
    model = keras_mpt.t5_from_pretrained(folder)
    ids = sentencepiece.SentencePieceProcessor(str(folder / "spiece.model")).encode("the red fox")
    x = {"encoder_text": ["the red fox"], "decoder_text": ["the red fox"]}
    x, y, _ = model.preprocessor(x, encoder_sequence_length=20, decoder_sequence_length=20)
    encoder, decoder = (
        ops.convert_to_numpy(x[f"{s}_token_ids"])[0] for s in ("encoder", "decoder")
    )
    assert encoder.tolist() == (ids + [1] + [0] * 20)[:20]
    assert decoder.tolist() == ([0] + ids + [1] + [0] * 20)[:20]
    change_config(folder, vocab_size=9)
    with pytest.raises(ValueError, match="`vocab_size` should be at least the .*vocab_size=9 in"):
        keras_mpt.t5_from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bart"}, "`model_type` should be 't5' or 'mt5'.*model_type='bart' in"),
        ({"model_type": None}, "`model_type` should be 't5' or 'mt5'.*model_type=None in"),
        ({"model_type": "umt5"}, "position bias in every layer.*Received: model_type='umt5' in"),
        ({"num_decoder_layers": 3}, "`num_decoder_layers` should be 1: .*num_decoder_layers=3 in"),
        (
            {"relative_attention_num_buckets": 16},
            "`relative_attention_num_buckets` should be 32: .*_num_buckets=16 in",
        ),
        (
            {"relative_attention_max_distance": 64},
            "`relative_attention_max_distance` should be 128: .*_max_distance=64 in",
        ),
        (
            {"feed_forward_proj": "gated-mish", "dense_act_fn": None},
            "`feed_forward_proj` should be one of .*='gated-mish' with activation 'mish' in",
        ),
        ({"dense_act_fn": "mish"}, "should be one of .*='relu' with activation 'mish' in"),
        ({"d_kv": None}, "`d_kv` should be a positive integer. Received: d_kv=None in"),
        ({"d_ff": 0}, "`d_ff` should be a positive integer. Received: d_ff=0 in"),
        ({"dropout_rate": 1.5}, "`dropout_rate` should be a number from 0 .*dropout_rate=1.5 in"),
        (
            {"tie_word_embeddings": False},
            r"should hold 'lm_head.weight', as its tie_word.*without \['lm_head.weight'\]",
        ),
    ],
)
def test_configs_that_are_refused(changes, message, folder):
    change_config(folder, **changes)
    with pytest.raises(ValueError, match=message):
        keras_mpt.t5_from_pretrained(folder)


def test_weights_that_are_refused(folder):
    good = (folder / SAFETENSORS).read_bytes()
    q = "encoder.block.0.layer.0.SelfAttention.q.weight"
    nan = np.full((VOCABULARY, WIDTH), np.nan, "float32")
    for changes, message in (
        (
            {q: None, "shared.weight": None, "more": nan},
            rf"should hold the 26 weights .*without \['{q}', 'shared.weight'\] and with unknown "
            r"\['more'\]",
        ),
        (
            {q: np.zeros((WIDTH, 10), "float32")},
            rf"`{q}` in .* should have shape \(10, 12\). Received: {q} of shape \(12, 10\)",
        ),
        ({"lm_head.weight": nan}, "`lm_head.weight` in .* should be finite.* 480 values that are"),
        (
            {"encoder.embed_tokens.weight": nan},
            "`encoder.embed_tokens.weight` in .* should equal `shared.weight`: .* one token emb",
        ),
    ):
        (folder / SAFETENSORS).write_bytes(good)
        change_weights(folder, **changes)
        with pytest.raises(ValueError, match=message):
            keras_mpt.t5_from_pretrained(folder)


def test_files_that_are_refused(folder, tmp_path):
    def refused(message):
        with pytest.raises(ValueError, match=message):
            keras_mpt.t5_from_pretrained(folder)

    index = folder / f"{SAFETENSORS}.index.json"
    content = (folder / SAFETENSORS).read_bytes()
    (folder / SAFETENSORS).write_bytes(content[:-4])
    refused("should be a safetensors file. Received: .*model.safetensors', which is truncated")
    (folder / SAFETENSORS).unlink()
    refused(r"hold one of \['model.safetensors', 'pytorch_model.bin'\].*which has none")
    (folder / BIN).write_bytes(pickle.dumps({"shared.weight": Attack(tmp_path / "marker")}, 2))
    refused("should be a PyTorch state dict of plain tensors. .* holds more than weights")
    assert not (tmp_path / "marker").exists()
    for shards, message in (
        ("{", "`model.safetensors.index.json` should be JSON"),
        ("{}", "`weight_map` should be a mapping"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "to a file of the folder. Received: .*index"),
        ('{"weight_map": {"a": "a.safetensors"}}', "no such file: .*a.safetensors'"),
        ('{"weight_map": {"a": "b.safetensors"}}', r"without \['a'\] and with \['b'\]"),
    ):
        index.write_text(shards)
        save_file({"b": np.zeros(2)}, folder / "b.safetensors")
        refused(message)
    (folder / CONFIG).write_text('{"model_type": "t5"')
    refused("`config.json` should be JSON. Received: .*config.json', which is broken")
    (folder / CONFIG).unlink()
    refused("`directory` should be a folder with a config.json. Received: directory=.*has none")


TASK_IDS = torch.tensor([2, 0, 1, 2])


def peft_logits(model, x, labels):
    """PEFT's logits of user positions. It makes the decoder's ids of the labels."""
    masks = {"attention_mask": torch.tensor(x["encoder_padding_mask"])}
    if model.active_peft_config.num_transformer_submodules == 2:
        # With M = 1 PEFT lengthens this mask too, though the decoder gets no prompt.
        masks["decoder_attention_mask"] = torch.tensor(x["decoder_padding_mask"])
    ids = torch.tensor(x["encoder_token_ids"]).long()
    with torch.no_grad():
        output = model(input_ids=ids, labels=torch.tensor(labels), task_ids=TASK_IDS, **masks)
    return output.logits.numpy()[:, -labels.shape[1] :]


@slow_on_jax
@pytest.mark.parametrize("submodules", [2, 1] if IS_EAGER else [2])
def test_prompts_to_and_from_peft(submodules, variant, tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is the reference here: pip install peft")
    folder, t5 = variant("1.1")
    config = peft.MultitaskPromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=PROMPT, num_tasks=3, num_ranks=2,
        num_transformer_submodules=submodules,
    )  # fmt: skip

    def base():
        return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)

    model = peft.get_peft_model(base(), config).eval()
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.normal_()
    model.save_pretrained(tmp_path / "peft")
    # With its prompt each side is as long as in the tests above, which JAX has compiled.
    x = data(150 - PROMPT, 140 - (submodules - 1) * PROMPT)
    labels = np.random.default_rng(1).integers(2, VOCABULARY, x["decoder_token_ids"].shape)
    x["decoder_token_ids"] = np.concatenate([np.zeros((ROWS, 1), int), labels[:, :-1]], 1)

    def assert_equal(ours, peft_model):
        logits = ops.convert_to_numpy(ours({**x, "task_ids": TASK_IDS.numpy()}))
        wanted = peft_logits(peft_model, x, labels)
        assert error(logits, wanted, x["decoder_padding_mask"]) <= 1e-5

    prompted = keras_mpt.load_adapter(t5 if submodules == 2 else t5.backbone, tmp_path / "peft")
    assert_equal(prompted, model)
    if submodules == 2:
        prompted.save(tmp_path / "model.keras")
        assert_equal(keras.saving.load_model(tmp_path / "model.keras"), model)
    rng = np.random.default_rng(2)
    for variable in prompted.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    prompted.save_adapter(tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # transformers warns of itself whenever PEFT wraps a model, whatever the adapter.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        opened = peft.PeftModel.from_pretrained(base(), tmp_path / "ours").eval()
    assert_equal(prompted, opened)
