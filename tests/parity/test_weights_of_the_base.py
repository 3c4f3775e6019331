"""PEFT's adapters with weights of their base in them: those that it has too, and others."""

import json

import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests.marks import only_torch

pytestmark = only_torch

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH, SIZE = 3, 16
IDS = np.random.default_rng(0).integers(2, 50, (2, 5))
TABLE = "base_model.transformer.wte.weight"


def gpt2(folder, size=None):
    """A random GPT-2, whose vocabulary is resized where a size is given."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=SIZE, n_layer=1, n_head=2, n_positions=32, bos_token_id=1,
        eos_token_id=1, initializer_range=0.3,
    )  # fmt: skip
    transformers.GPT2LMHeadModel(config).save_pretrained(folder / "original")
    # PEFT looks there for the vocabulary's own size.
    base = transformers.GPT2LMHeadModel.from_pretrained(folder / "original")
    if size:
        base.resize_token_embeddings(size, mean_resizing=False)
    base.save_pretrained(folder / "base")
    return base


def bert(folder):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=SIZE, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=32, hidden_act="gelu_new",
        initializer_range=0.3,
    )  # fmt: skip
    base = transformers.BertForSequenceClassification(config)
    base.save_pretrained(folder / "base")
    return base


def tuned(base, folder, save=None, **kwargs):
    """PEFT's model with random prompts, saved."""
    config = peft.PromptTuningConfig(num_virtual_tokens=LENGTH, **kwargs)
    model = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_(std=0.3)
    model.save_pretrained(folder / "adapter", **(save or {}))
    return model


def logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS), attention_mask=torch.ones(IDS.shape)).logits.numpy()


def ours(backbone, folder):
    model = keras_mpt.load_adapter(backbone, folder / "adapter")
    x = {"token_ids": IDS, "padding_mask": np.ones_like(IDS)}
    if "segment_ids" in backbone.input:
        x["segment_ids"] = 0 * IDS
    return model.predict(x, verbose=0)


def backbone_of(folder, kind="GPT2"):
    return getattr(keras_hub.models, f"{kind}Backbone").from_preset(str(folder))


@pytest.mark.parametrize("size", [None, 51])
def test_embeddings_that_the_backbone_has_too(size, tmp_path):
    base = gpt2(tmp_path, size)
    model = tuned(base, tmp_path, {"save_embedding_layers": True}, task_type="CAUSAL_LM")
    assert TABLE in keras_mpt.read_state_dict(tmp_path / "adapter")
    theirs = logits(model)[:, LENGTH:]
    np.testing.assert_allclose(ours(backbone_of(tmp_path / "base"), tmp_path), theirs, atol=2e-5)


def test_embeddings_of_half_precision(tmp_path):
    base = gpt2(tmp_path)
    backbone = backbone_of(tmp_path / "base")
    tuned(base.half(), tmp_path, {"save_embedding_layers": True}, task_type="CAUSAL_LM")
    keras_mpt.load_adapter(backbone, tmp_path / "adapter")


def test_a_resized_vocabulary_is_named(tmp_path):
    """A padding token was added, and PEFT saves the embeddings by itself."""
    tuned(gpt2(tmp_path, 51), tmp_path, task_type="CAUSAL_LM")
    backbone = backbone_of(tmp_path / "original")
    model = keras_mpt.prompt_tune(
        backbone, keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    )
    before = model.prompt.get_weights()[0]
    for load in (model.load_adapter, lambda d: keras_mpt.load_adapter(backbone, d)):
        with pytest.raises(ValueError) as raised:
            load(tmp_path / "adapter")
        assert str(raised.value) == (
            f"`{tmp_path / 'adapter'}` should hold the prompt, the head, and no weights of the "
            "base but those that the backbone has. Received: ['base_model.lm_head.weight (51, 16)',"
            f" '{TABLE} (51, 16)'], other ones, which PEFT saves of a resized vocabulary "
            "(`save_embedding_layers`) and by `modules_to_save`. Load the backbone from that base, "
            "or set its layers' weights to these (`keras_mpt.read_state_dict` reads "
            "them); or save the adapter in PEFT without them"
        )
    np.testing.assert_array_equal(before, model.prompt.get_weights()[0])


def test_embeddings_of_the_same_size_with_other_rows(tmp_path):
    base = gpt2(tmp_path)
    backbone = backbone_of(tmp_path / "base")
    with torch.no_grad():
        base.transformer.wte.weight[7] += 0.01
    tuned(base, tmp_path, {"save_embedding_layers": True}, task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match=rf"{TABLE} \(50, 16\)"):
        ours(backbone, tmp_path)


def test_a_pooler_that_was_trained_is_named_and_can_be_given(tmp_path):
    base = bert(tmp_path)
    model = tuned(base, tmp_path, task_type="SEQ_CLS", modules_to_save=["classifier", "pooler"])
    theirs, backbone = logits(model), backbone_of(tmp_path / "base", "Bert")
    with pytest.raises(ValueError, match=r"pooler.dense.bias \(16,\)', .*pooler.dense.weight \(16"):
        ours(backbone, tmp_path)
    state = keras_mpt.read_state_dict(tmp_path / "adapter")
    pooler = [state[f"base_model.bert.pooler.dense.{name}"] for name in ("weight", "bias")]
    backbone.pooled_dense.set_weights([pooler[0].T, pooler[1]])
    np.testing.assert_allclose(ours(backbone, tmp_path), theirs, atol=1e-4)


def test_a_named_adapter_is_found_by_its_folder(tmp_path):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=LENGTH)
    model = peft.get_peft_model(gpt2(tmp_path), config, adapter_name="tone")
    model.save_pretrained(tmp_path / "adapter")
    backbone = backbone_of(tmp_path / "base")
    message = r"Adapters in folders of their own are there: \['tone'\]; give one of these folders"
    with pytest.raises(ValueError, match=message):
        keras_mpt.load_adapter(backbone, tmp_path / "adapter")
    keras_mpt.load_adapter(backbone, tmp_path / "adapter" / "tone")
    assert json.loads((tmp_path / "adapter" / "tone" / "adapter_config.json").read_text())
