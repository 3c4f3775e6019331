"""The cases of PEFT's own tests of this method that no other file here has, with values checked.

The others: a frozen backbone (tests/models/test_backbone.py), generation with mixed tasks and the
cache on and off (test_generation.py), starts from source tasks (tests/prompts/), RANDOM
(tests/prompts/test_starts.py), missing task ids (tests/fitting/test_bad_input.py).
"""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.marks import slow_on_jax
from tests.parity.families import ALL_ON

peft = pytest.importorskip("peft", reason="PEFT is the reference here: pip install peft")
transformers = pytest.importorskip("transformers", reason="PEFT's models are transformers'")
torch = pytest.importorskip("torch", reason="PEFT runs on PyTorch")

VOCABULARY, LENGTH, TASK_IDS = 60, 4, np.array([0, 2, 1, 2])
IDS = np.random.default_rng(0).integers(1, VOCABULARY, (4, 7))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A small random Llama on disk."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def peft_model(path, dtype="float32"):
    """PEFT's model with random prompts."""
    base = transformers.LlamaForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
    config = peft.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_tasks=3
    )
    model = peft.get_peft_model(base, config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.prompt_encoder.parameters():
            weight.normal_()
    return model


def logits(model):
    """A model's logits of user positions."""
    if isinstance(model, peft.PeftModel):
        with torch.no_grad():
            out = model(input_ids=torch.tensor(IDS), task_ids=torch.tensor(TASK_IDS)).logits
        return out.float().numpy()[:, LENGTH:]
    x = {"token_ids": IDS, "padding_mask": np.ones_like(IDS), "task_ids": TASK_IDS}
    return ops.convert_to_numpy(ops.cast(model(x), "float32"))


def largest_difference(found, wanted):
    """Relative to the largest."""
    return np.abs(found - wanted).max() / np.abs(wanted).max()


def bare_difference(path, backbone):
    """How far keras-hub's own model is from itself in float32."""
    exact = keras_hub.models.LlamaBackbone.from_preset(str(path))
    ids = np.random.default_rng(1).integers(1, VOCABULARY, (16, LENGTH + IDS.shape[1]))
    models = [keras_hub.models.LlamaCausalLM(b, None) for b in (backbone, exact)]
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    return largest_difference(*(ops.convert_to_numpy(ops.cast(m(x), "float32")) for m in models))


@slow_on_jax
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_both_file_formats(llama, format, tmp_path):
    model = peft_model(llama)
    model.save_pretrained(tmp_path, safe_serialization=format == "safetensors")
    assert (tmp_path / f"adapter_model.{format}").exists()
    backbone = keras_hub.models.LlamaBackbone.from_preset(str(llama))
    wanted = logits(model)
    found = logits(keras_mpt.load_adapter(backbone, tmp_path))
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@slow_on_jax
def test_bfloat16(llama, tmp_path):
    """Half precision here differs from float32 about as much as PEFT's does.

    Processors differ in how they round bfloat16's sums, and on one processor PyTorch and TensorFlow
    do. So PEFT is the measure on PyTorch; elsewhere keras-hub's own model is, without prompts.
    """
    exact = logits(peft_model(llama))
    model = peft_model(llama, "bfloat16")
    model.save_pretrained(tmp_path)
    backbone = keras_hub.models.LlamaBackbone.from_preset(str(llama), dtype="bfloat16")
    ours = keras_mpt.load_adapter(backbone, tmp_path)
    # The prompt's own variables stay float32: half a digit of a small factor would be lost.
    assert {v.dtype for v in ours.trainable_variables} <= {"float32", torch.float32}
    error = largest_difference(logits(ours), exact)
    measure = largest_difference(logits(model), exact)
    if keras.backend.backend() != ALL_ON:
        measure = bare_difference(llama, backbone)
    assert 0 < error <= 2 * measure < 0.2
    x = {"token_ids": np.pad(IDS, ((0, 0), (0, 3))), "task_ids": TASK_IDS}
    x["padding_mask"] = np.pad(np.ones_like(IDS), ((0, 0), (0, 3)))
    ours.compile(sampler="greedy")
    made = ours.generate(x, stop_token_ids=None)["token_ids"]
    likeliest = logits(ours).argmax(axis=-1)[:, -1]
    np.testing.assert_array_equal(made[:, IDS.shape[1]], likeliest)


@pytest.mark.skipif(keras.backend.backend() != ALL_ON, reason=f"slow; tested on {ALL_ON}")
def test_an_int8_backbone(llama):
    """Prompts train on a backbone of integers, which stays as it is."""
    backbone = keras_hub.models.LlamaBackbone.from_preset(str(llama))
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_tasks=3, seed=0
    )
    whole = logits(keras_mpt.prompt_tune(backbone, config))
    backbone.quantize("int8")
    model = keras_mpt.prompt_tune(backbone, config)
    assert any(str(v.dtype).endswith("int8") for v in backbone.weights)
    found = logits(model)
    cosine = (found * whole).sum() / np.linalg.norm(found) / np.linalg.norm(whole)
    assert 0.9 < cosine < 1
    frozen = [ops.convert_to_numpy(v) for v in backbone.weights]
    prompt = ops.convert_to_numpy(model.prompt.prompt_embeddings)
    x = {"token_ids": IDS, "padding_mask": np.ones_like(IDS), "task_ids": TASK_IDS}
    history = model.fit(x, np.roll(IDS, -1, 1), epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert (ops.convert_to_numpy(model.prompt.prompt_embeddings) != prompt).all()
    for variable, before in zip(backbone.weights, frozen, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), before)
