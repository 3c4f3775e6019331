"""`convert_gguf`: a file of llama.cpp's as a Hugging Face folder."""

import tomllib
from pathlib import Path

import gguf
import keras
import keras_hub
import numpy as np
import pytest
import transformers

import keras_mpt
from tests.marks import only_torch
from tests.parity.measure import torch

pytestmark = only_torch

HEADS, KV_HEADS, WIDTH, INNER = 4, 2, 16, 24
# Bytes as GPT-2 writes them, one merge, and the two tokens at which a text begins and ends.
TOKENS = ["<|start|>", "<|end|>", *"abcdefghijklmnop", "Ġ", "ab"]


def llama():
    """A random model of one layer."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config).eval()


def interleaved(weight, heads):
    """A query's or key's rows in llama.cpp's order, in which the halves of a rotation alternate."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write(path, model, architecture="llama", quantized=False):
    """The model as a GGUF file."""
    config, writer = model.config, gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        **{f"self_attn.{x}_proj": f"attn_{x}" for x in "qkv"},
        "self_attn.o_proj": "attn_output",
        **{f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")},
    }
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        own = name.removeprefix("model.layers.0.").removesuffix(".weight")
        value = tensor.numpy()
        if own == "self_attn.q_proj":
            value = interleaved(value, HEADS)
        elif own == "self_attn.k_proj":
            value = interleaved(value, KV_HEADS)
        block = "blk.0." if "layers" in name else ""
        writer.add_tensor(f"{block}{names[own]}.weight", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_folder_computes_what_the_file_holds(tmp_path):
    model = llama()
    path = write(tmp_path / "tiny.gguf", model)
    folder = keras_mpt.convert_gguf(path, tmp_path / "made" / "tiny")
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["tiny"]
    backbone = keras_mpt.backbone_from_pretrained(folder, verify=True)
    assert backbone.layers[-1].epsilon == pytest.approx(1e-5)
    ids = np.array([[2, 3, 4, 5]])
    ours = backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    ours = backbone.token_embedding(ours, reverse=True).detach().numpy()
    theirs = model(torch.tensor(ids)).logits.detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    text = keras_hub.models.Llama3Tokenizer.from_preset(str(folder))
    assert np.asarray(text("abc a")).tolist() == [19, 4, 18, 2]


def test_a_smaller_dtype_is_written(tmp_path):
    folder = keras_mpt.convert_gguf(write(tmp_path / "a.gguf", llama()), tmp_path / "a", "bfloat16")
    found = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert found.dtype == torch.bfloat16


@pytest.mark.parametrize("kept", [0, 3, 30, 400, 0.5, 0.9, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path, kept):
    whole = write(tmp_path / "whole.gguf", llama()).read_bytes()
    size = int(len(whole) * kept) if isinstance(kept, float) else kept
    (tmp_path / "cut.gguf").write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r"`path` should be a whole GGUF file. Received: path="):
        keras_mpt.convert_gguf(tmp_path / "cut.gguf", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`path` should be a GGUF file. Received: .* no file"):
        keras_mpt.convert_gguf(tmp_path / "none.gguf", tmp_path / "made")
    (tmp_path / "text.gguf").write_text("not one" * 100)
    with pytest.raises(ValueError, match="`path` should be a whole GGUF file"):
        keras_mpt.convert_gguf(tmp_path / "text.gguf", tmp_path / "made")
    with pytest.raises(ValueError, match="`dtype` should be .float32., "):
        keras_mpt.convert_gguf(tmp_path / "text.gguf", tmp_path / "made", dtype="int8")


def test_another_architecture_is_refused(tmp_path):
    path = write(tmp_path / "a.gguf", llama(), architecture="rwkv6")
    with pytest.raises(ValueError, match="an architecture that transformers reads.*'rwkv6'"):
        keras_mpt.convert_gguf(path, tmp_path / "made")
    path = write(tmp_path / "b.gguf", llama(), architecture="stablelm")
    with pytest.raises(ValueError, match="'stablelm'"):
        keras_mpt.convert_gguf(path, tmp_path / "made")
    # Tensors of another architecture than it says.
    for kind, words in [
        ("qwen2", r"with all weights of its architecture.*'qwen2', without .*q_proj\.bias"),
        ("gpt2", "that transformers can read. Received: .* of which it says RuntimeError"),
        ("mistral", "that transformers can read. Received: .* of which it says NotImplemented"),
        ("t5", "a GGUF file .* Received"),
    ]:
        path = write(tmp_path / f"{kind}.gguf", llama(), architecture=kind)
        with pytest.raises(ValueError, match=words):
            keras_mpt.convert_gguf(path, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    path = write(tmp_path / "a.gguf", llama())
    (tmp_path / "made").mkdir()
    with pytest.raises(ValueError, match="`folder` should be one that is not there yet"):
        keras_mpt.convert_gguf(path, tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())


def test_a_model_with_the_folders_tokenizer_is_saved_whole(tmp_path):
    """keras-hub's config of a tokenizer leaves out the special tokens that a checkpoint names."""
    folder = str(keras_mpt.convert_gguf(write(tmp_path / "a.gguf", llama()), tmp_path / "a"))
    model = keras_mpt.prompt_tune(
        keras_hub.models.Llama3CausalLM(
            backbone=keras_mpt.backbone_from_pretrained(folder),
            preprocessor=keras_hub.models.Llama3CausalLMPreprocessor.from_preset(folder),
        ),
        keras_mpt.PromptTuningConfig(num_virtual_tokens=2, label_words=["a", "b"]),
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    tokenizer = loaded.preprocessor.tokenizer
    assert (tokenizer.start_token, tokenizer.end_token_id) == ("<|start|>", 1)
    texts = ["abc", "cab"]
    np.testing.assert_allclose(loaded.score(texts), model.score(texts), atol=1e-6)
    assert loaded.predict_labels(texts) == model.predict_labels(texts)


def test_what_it_needs_is_what_its_extra_brings(monkeypatch, tmp_path):
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    extra = tomllib.loads(pyproject.read_text())["project"]["optional-dependencies"]["gguf"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError) as raised:
        keras_mpt.convert_gguf(tmp_path / "a.gguf", tmp_path / "folder")
    assert f"of which {extra} are missing: pip install " in str(raised.value)
