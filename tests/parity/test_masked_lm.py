"""Masked language models beside transformers', and their adapters in PEFT and back."""

import json
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.marks import only_torch
from tests.parity.families import variant

pytestmark = only_torch
torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

LENGTH, VOCABULARY = 3, 60
IDS = np.random.default_rng(0).integers(2, VOCABULARY, (2, 6))
MASK = np.array([[1] * 6, [1] * 4 + [0] * 2])
PLACES = np.array([[1, 5], [2, 0]])


def saved(folder, family, **changes):
    """A random masked language model of transformers as published files have it."""
    config = variant(family, **changes).make().config
    torch.manual_seed(0)
    model = transformers.AutoModelForMaskedLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
    whole = model
    if family in ("bert", "albert"):  # Published ones have a pooler, which keras-hub asks for.
        whole = transformers.AutoModelForPreTraining.from_config(config)
        whole.load_state_dict(model.state_dict(), strict=False)
    whole.save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module", params=["bert", "roberta"])
def pair(request, tmp_path_factory):
    """keras-hub's model with a Hugging Face folder's weights, and transformers' of that folder."""
    folder = tmp_path_factory.mktemp(request.param)
    cls = type(saved(folder, request.param))
    base = keras_mpt.masked_lm_from_pretrained(folder)
    return base, lambda: cls.from_pretrained(folder).eval()


def ours_of(base, **settings):
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=LENGTH, **settings)
    return keras_mpt.prompt_tune(base, config)


def logits_of(model, ids=IDS):
    is_ours = isinstance(model, keras_mpt.models.PromptTunedMaskedLM)
    names = model.model_inputs.names if is_ours else [t.name for t in model.inputs]
    x = {"token_ids": ids, "padding_mask": MASK, "mask_positions": PLACES, "segment_ids": 0 * IDS}
    return ops.convert_to_numpy(model({k: v for k, v in x.items() if k in names}))


def assert_same(found, expected, start=LENGTH):
    expected = expected[np.arange(2)[:, None], PLACES + start]
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"layer_norm_eps": 1e-3, "hidden_act": "relu"}),
        ("roberta", {"hidden_act": "relu"}),  # Its head has the GELU all the same.
        ("xlm_roberta", {}),
        ("distilbert", {}),
        ("albert", {"hidden_act": "gelu_new"}),
        ("esm", {"token_dropout": False}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_logits_of_a_folder_are_those_of_transformers(family, changes, tmp_path):
    theirs = saved(tmp_path, family, **changes)
    ids = np.where(MASK == 1, IDS, 1) if family == "esm" else IDS
    with torch.no_grad():
        x = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(MASK)}
        expected = theirs(**x).logits.numpy()
    base = keras_mpt.masked_lm_from_pretrained(tmp_path)
    assert_same(logits_of(base, ids), expected, start=0)


def test_folders_that_are_no_masked_language_models(tmp_path):
    config = variant("roberta").make().config
    transformers.RobertaForSequenceClassification(config).save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueError, match="hold a masked language model, with one of .*of them"):
        keras_mpt.masked_lm_from_pretrained(tmp_path / "bare")
    variant("gpt2").make().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="keras-hub has a MaskedLM for. Received: .* GPT2Backbone"):
        keras_mpt.masked_lm_from_pretrained(tmp_path / "gpt2")
    saved(tmp_path / "untied", "distilbert", tie_word_embeddings=False)
    with pytest.raises(ValueError, match="tied to the token embedding, as keras-hub's DistilBert"):
        keras_mpt.masked_lm_from_pretrained(tmp_path / "untied")


def test_logits_are_those_of_transformers_with_the_prompt_as_embeddings(pair, tmp_path):
    base, fresh = pair
    model, theirs = ours_of(base, prompt_position="before"), fresh()
    prompt = np.random.default_rng(1).normal(size=model.prompt.prompt_embeddings.shape)
    model.prompt.prompt_embeddings.assign(prompt)
    words = theirs.get_input_embeddings()(torch.tensor(IDS))
    rows = torch.tensor(prompt, dtype=torch.float32).expand(2, -1, -1)
    mask = torch.tensor(np.concatenate([np.ones((2, LENGTH), int), MASK], axis=1))
    with torch.no_grad():
        embeddings = torch.cat([rows, words], dim=1)
        expected = theirs(inputs_embeds=embeddings, attention_mask=mask).logits.numpy()
    assert_same(logits_of(model), expected)
    model.save(tmp_path / "m.keras")  # With the norm's epsilon, which no config of keras-hub has.
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_array_equal(logits_of(loaded), logits_of(model))


def test_adapters_open_in_peft_and_come_back(pair, tmp_path):
    base, fresh = pair
    model = ours_of(base, prompt_position="before")
    model.prompt.prompt_embeddings.assign(np.random.default_rng(2).normal(size=(LENGTH, 16)))
    model.save_adapter(tmp_path / "ours")
    saved_config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert saved_config["task_type"] == "FEATURE_EXTRACTION"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # transformers warns of itself whenever PEFT wraps a model, whatever the adapter.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        opened = peft.PeftModel.from_pretrained(fresh(), tmp_path / "ours").eval()
    x = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}
    with torch.no_grad():
        assert_same(logits_of(model), opened(**x).logits.numpy())
        opened.prompt_encoder["default"].embedding.weight.normal_()
        changed = opened(**x).logits.numpy()
    opened.save_pretrained(tmp_path / "theirs")
    back = keras_mpt.load_adapter(base, tmp_path / "theirs")
    assert type(back) is keras_mpt.models.PromptTunedMaskedLM
    assert_same(logits_of(back), changed)
