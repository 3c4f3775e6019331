"""What is exported gives our logits in transformers, fed as each server feeds it."""

import base64
import io
import json

import keras
import numpy as np
import pytest

import keras_mpt
from tests.marks import IS_EAGER, slow_on_jax
from tests.parity.measure import (
    LENGTH,
    ROWS,
    TASK_IDS,
    TASKS,
    TOLERANCE,
    data,
    difference,
    load_peft_adapter,
    our_inputs,
    torch,
)

# GPT-2 adds positions to embeddings, Llama turns keys by them, Gemma multiplies embeddings by √d.
# Llama has nothing of its own here, and is compiled for long; Gemma is compiled for long by JAX.
FAMILIES = (
    "gpt2",
    pytest.param("gemma", marks=slow_on_jax),
    *(("llama",) if IS_EAGER else ()),
)


@pytest.fixture(params=FAMILIES)
def pair(request, pair_of):
    return pair_of(request.param)


# Our logits of `data()` by family: JAX compiles each call's operations anew.
_LOGITS = {}


def ours_at(pair, model, d, b):
    """Our logits of row b's tokens, under its task."""
    if pair.family.name not in _LOGITS:
        x = {**our_inputs(pair, d), "task_ids": TASK_IDS}
        _LOGITS[pair.family.name] = keras.ops.convert_to_numpy(model(x))
    return _LOGITS[pair.family.name][b][d["mask"][b] == 1]


def theirs_at(base, embeds):
    """The logits that transformers' model gives after the prompt."""
    with torch.no_grad():
        logits = base(inputs_embeds=torch.tensor(np.asarray(embeds))[None]).logits[0]
    return logits[LENGTH:].numpy()


def close(found, expected):
    return difference(found, expected, np.ones(len(expected))) <= TOLERANCE


def without_padding(d, b):
    return d["ids"][b][d["mask"][b] == 1]


def embedded(base, ids):
    """Tokens as transformers embeds them."""
    return base.get_input_embeddings()(torch.tensor(ids)).detach()


def test_the_whole_input_as_vllm_and_sglang_take_it(pair):
    model, d = load_peft_adapter(pair), data()
    embeds = model.prompt_embeds({**our_inputs(pair, d), "task_ids": TASK_IDS})
    assert len(embeds) == ROWS
    for b, row in enumerate(embeds):
        assert row.shape == (LENGTH + len(without_padding(d, b)), 16) and row.dtype == "float32"
        assert close(theirs_at(pair.base, row), ours_at(pair, model, d, b))
        # vLLM's: base64 of `torch.save`, opened with `weights_only`.
        buffer = io.BytesIO()
        torch.save(torch.from_numpy(row), buffer)
        sent = io.BytesIO(base64.b64decode(base64.b64encode(buffer.getvalue()).decode()))
        np.testing.assert_array_equal(torch.load(sent, weights_only=True).numpy(), row)
        # SGLang's: lists of numbers in JSON.
        sent = json.loads(json.dumps({"input_embeds": row.tolist()}))["input_embeds"]
        np.testing.assert_array_equal(np.array(sent, "float32"), row)


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npy"])
def test_the_prompt_alone_before_the_server_s_own_embeddings(pair, suffix, tmp_path):
    model, d, b = load_peft_adapter(pair), data(), 1
    path = tmp_path / f"prompt.{suffix}"
    model.export_prompt_embeds(TASK_IDS[b], path)
    prompt = {
        "pt": lambda: torch.load(path, weights_only=True).numpy(),
        "safetensors": lambda: keras_mpt.read_state_dict(path)["prompt_embeddings"],
        "npy": lambda: np.load(path),
    }[suffix]()
    assert prompt.shape == (LENGTH, 16) and prompt.dtype == "float32"
    whole = np.concatenate([prompt, embedded(pair.base, without_padding(d, b))])
    assert close(theirs_at(pair.base, whole), ours_at(pair, model, d, b))


def test_a_folder_of_tgis(pair, tmp_path):
    model, d, b = load_peft_adapter(pair), data(), 2
    model.export_prompt_embeds(TASK_IDS[b], tmp_path / "topic")
    (file,) = (tmp_path / "topic").iterdir()
    assert file.name == "decoder.pt"
    prompt = torch.load(file, weights_only=True, map_location="cpu")
    assert torch.is_tensor(prompt) and prompt.ndim == 2 and not prompt.requires_grad
    whole = np.concatenate([prompt, embedded(pair.base, without_padding(d, b))])
    assert close(theirs_at(pair.base, whole), ours_at(pair, model, d, b))


def test_the_table_of_tensorrt_llm(pair, tmp_path):
    """Ids from V on are looked up in the task's rows of the table; then all is multiplied."""
    model, d = load_peft_adapter(pair), data()
    model.export_prompt_table(tmp_path / "table.npy")
    table = np.load(tmp_path / "table.npy")
    assert table.shape == (TASKS, LENGTH, 16) and table.dtype == "float32"
    weight = pair.base.get_input_embeddings().weight.detach().numpy()
    size, flat = len(weight), table.reshape(-1, 16)
    scale = 4.0 if pair.family.name == "gemma" else 1.0
    for b in range(ROWS):
        ids = np.concatenate([size + np.arange(LENGTH), without_padding(d, b)])
        is_virtual = ids >= size
        looked_up = np.where(
            is_virtual[:, None],
            flat[np.where(is_virtual, ids - size, 0) + TASK_IDS[b] * LENGTH],
            weight[np.where(is_virtual, 0, ids)],
        )
        assert close(theirs_at(pair.base, scale * looked_up), ours_at(pair, model, d, b))


@slow_on_jax
def test_a_server_that_multiplies_all_it_is_given(pair_of, tmp_path):
    pair = pair_of("gemma")
    model, d = load_peft_adapter(pair), data()
    x = {**our_inputs(pair, d), "task_ids": TASK_IDS}
    for row, plain in zip(
        model.prompt_embeds(x), model.prompt_embeds(x, scaled=False), strict=True
    ):
        np.testing.assert_allclose(4 * plain, row, rtol=1e-6)
    model.export_prompt_embeds(0, tmp_path / "a.npy", scaled=False)
    model.export_prompt_table(tmp_path / "table.npy", scaled=True)
    model.export_prompt_table(tmp_path / "plain.npy", scaled=False)
    a, plain, table = (np.load(tmp_path / f"{name}.npy") for name in ("a", "plain", "table"))
    np.testing.assert_array_equal(table, 4 * plain)
    # A prompt alone and among others is multiplied in another order on some processors.
    np.testing.assert_allclose(plain[0], a, rtol=1e-6)


@slow_on_jax
def test_encoder_and_decoder_prompts(pair_of, tmp_path):
    pair, d, b = pair_of("bart"), data(), 0
    model = load_peft_adapter(pair)
    model.export_prompt_embeds(TASK_IDS[b], tmp_path / "both")
    encoder, decoder = (
        torch.load(tmp_path / "both" / f"{side}.pt", weights_only=True)
        for side in ("encoder", "decoder")
    )
    ids, decoder_ids = d["ids"][b], d["decoder_ids"][b]
    decoder_table = pair.base.get_decoder().get_input_embeddings()
    with torch.no_grad():
        logits = pair.base(
            inputs_embeds=torch.cat([encoder, embedded(pair.base, ids)])[None],
            decoder_inputs_embeds=torch.cat([decoder, decoder_table(torch.tensor(decoder_ids))])[
                None
            ],
        ).logits[0, LENGTH:]
    ours = keras.ops.convert_to_numpy(model({**our_inputs(pair, d), "task_ids": TASK_IDS}))[b]
    assert close(logits.numpy(), ours)


def test_a_prompt_of_an_older_server_is_read(pair, tmp_path):
    """A random `decoder.pt`, given to transformers as it is, and to us."""
    d, b = data(), 0
    prompt = torch.randn(LENGTH, 16, generator=torch.Generator().manual_seed(1))
    (tmp_path / "old").mkdir()
    torch.save(prompt, tmp_path / "old" / "decoder.pt")
    for path in ("old", "old/decoder.pt"):
        model = keras_mpt.load_prompt(pair.backbone, tmp_path / path)
        assert type(model).__name__ == "PromptTunedCausalLM"
        assert model.config.num_virtual_tokens == LENGTH
    whole = np.concatenate([prompt, embedded(pair.base, d["ids"][b])])
    ours = keras.ops.convert_to_numpy(model(our_inputs(pair, d)))[b]
    assert close(theirs_at(pair.base, whole), ours)
    model.export_prompt_embeds(None, tmp_path / "new")
    again = torch.load(tmp_path / "new" / "decoder.pt", weights_only=True)
    np.testing.assert_allclose(again, prompt, rtol=1e-6)
