"""Masked language models beside transformers', and their adapters in PEFT and back."""

import warnings

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.marks import only_torch

pytestmark = only_torch
torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

LENGTH, VOCABULARY = 3, 60
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 64, "pad_token_id": 1,
}  # fmt: skip
# transformers' names of the head's weights, in the order of keras-hub's.
HEADS = {
    "Bert": (
        "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm",
        "cls.predictions",
    ),
    "Roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head"),
}  # fmt: skip
IDS = np.random.default_rng(0).integers(2, VOCABULARY, (2, 6))
MASK = np.array([[1] * 6, [1] * 4 + [0] * 2])
PLACES = np.array([[1, 5], [2, 0]])


@pytest.fixture(scope="module", params=HEADS)
def pair(request, tmp_path_factory):
    """keras-hub's model with a Hugging Face folder's weights, and transformers' of that folder."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    cls = getattr(transformers, f"{name}ForMaskedLM")
    # As published files are: BERT's have a pooler, which keras-hub's converter asks for.
    whole = transformers.BertForPreTraining if name == "Bert" else cls
    made = whole(getattr(transformers, f"{name}Config")(**SIZES))
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0, 0.3)
    made.save_pretrained(folder)
    backbone = keras_mpt.backbone_from_pretrained(folder)
    base = getattr(keras_hub.models, f"{name}MaskedLM")(backbone)
    dense, norm, output = HEADS[name]
    state = {k: v.numpy() for k, v in made.state_dict().items()}
    head = base.masked_lm_head
    own = [state[f"{part}.{kind}"] for part in (dense, norm) for kind in ("weight", "bias")]
    own = [own[0].T, *own[1:], state[f"{output}.bias"]]
    known = {id(v) for v in backbone.variables}
    for variable in head.variables:
        if id(variable) not in known:
            names = ("intermediate_dense/kernel", "intermediate_dense/bias", "gamma", "beta")
            kinds = [i for i, end in enumerate(names) if variable.path.endswith(end)]
            variable.assign(own[kinds[0] if kinds else 4])
    (inner,) = (x for x in head._layers if isinstance(x, keras.layers.LayerNormalization))
    inner.epsilon = 1e-12
    return base, lambda: cls.from_pretrained(folder).eval()


def ours_of(base, **settings):
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=LENGTH, **settings)
    return keras_mpt.prompt_tune(base, config)


def logits_of(model, places):
    x = {"token_ids": IDS, "padding_mask": MASK, "mask_positions": places}
    return ops.convert_to_numpy(model(x))


def assert_same(found, expected):
    rows = np.arange(2)[:, None]
    expected = expected[rows, PLACES + LENGTH]
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()
    assert np.abs(expected).max() > 1


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
    assert_same(logits_of(model, PLACES), expected)
    model.save(tmp_path / "m.keras")  # With the norm's epsilon, which no config of keras-hub has.
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(logits_of(loaded, PLACES), logits_of(model, PLACES))


def test_adapters_open_in_peft_and_come_back(pair, tmp_path):
    base, fresh = pair
    model = ours_of(base, prompt_position="before")
    model.prompt.prompt_embeddings.assign(np.random.default_rng(2).normal(size=(LENGTH, 16)))
    model.save_adapter(tmp_path / "ours")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # transformers warns of itself whenever PEFT wraps a model, whatever the adapter.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        opened = peft.PeftModel.from_pretrained(fresh(), tmp_path / "ours").eval()
    assert type(opened).__name__ == "PeftModelForFeatureExtraction"
    x = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}
    with torch.no_grad():
        assert_same(logits_of(model, PLACES), opened(**x).logits.numpy())
        opened.prompt_encoder["default"].embedding.weight.normal_()
        changed = opened(**x).logits.numpy()
    opened.save_pretrained(tmp_path / "theirs")
    back = keras_mpt.load_adapter(base, tmp_path / "theirs")
    assert type(back) is keras_mpt.models.PromptTunedMaskedLM
    assert_same(logits_of(back, PLACES), changed)
