"""What is set on a backbone's layers is kept in `.keras` files and noted in adapters."""

import re

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.adapters.backbone_identity import backbone_difference, backbone_identity
from keras_mpt.layer_settings import apply_settings, read_settings
from tests.marks import only_torch, slow_on_jax

IDS = np.array([[5, 6, 7, 8], [8, 7, 6, 5]])
INPUTS = {"token_ids": IDS, "padding_mask": np.ones_like(IDS), "task_ids": np.array([0, 1])}


def gemma():
    """keras-hub's Gemma 2, small, with weights that let an epsilon be seen."""
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GemmaBackbone(
        vocabulary_size=30, num_layers=2, num_query_heads=2, num_key_value_heads=1, hidden_dim=16,
        intermediate_dim=16, head_dim=8, use_sliding_window_attention=True, sliding_window_size=2,
    )  # fmt: skip
    for variable in backbone.weights:
        variable.assign(ops.convert_to_numpy(variable) * 0.3)
    return backbone


def llama(epsilon=1e-6):
    return keras_hub.models.LlamaBackbone(
        vocabulary_size=30, num_layers=1, num_query_heads=2, num_key_value_heads=1, hidden_dim=8,
        intermediate_dim=16, layer_norm_epsilon=epsilon,
    )  # fmt: skip


def changed(backbone):
    """Other epsilons and windows than the class builds, as a checkpoint may want them."""
    settings = read_settings(backbone)
    settings["epsilon"] = [1e-2 + i / 1e3 for i in range(len(settings["epsilon"]))]
    windows = settings["use_sliding_window_attention"]
    settings["use_sliding_window_attention"] = [not w for w in windows]
    apply_settings(backbone, settings)
    return settings


CONFIG = keras_mpt.MultitaskPromptTuningConfig(
    task_type="CAUSAL_LM", num_virtual_tokens=2, num_tasks=2
)


@slow_on_jax
def test_a_saved_model_computes_the_same(tmp_path):
    before = gemma()
    plain = ops.convert_to_numpy(keras_mpt.prompt_tune(before, CONFIG)(INPUTS))
    backbone = gemma()
    settings = changed(backbone)
    model = keras_mpt.prompt_tune(backbone, CONFIG)
    wanted = ops.convert_to_numpy(model(INPUTS))
    assert np.abs(wanted - plain).max() > 0.01 * np.abs(plain).max()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert read_settings(loaded.backbone) == settings
    np.testing.assert_allclose(ops.convert_to_numpy(loaded(INPUTS)), wanted, atol=1e-6)


@only_torch
def test_files_without_settings_load_as_they_were():
    model = keras_mpt.prompt_tune(llama(), CONFIG)
    config = model.get_config()
    del config["backbone_settings"]
    loaded = type(model).from_config(config)
    assert read_settings(loaded.backbone) == read_settings(model.backbone)


@only_torch
def test_settings_of_other_layers_are_refused():
    with pytest.raises(ValueError, match="4 layers with `epsilon`.* LlamaBackbone with 3"):
        apply_settings(llama(), {"epsilon": [1e-5] * 4})


@only_torch
def test_load_adapter_says_which_setting_differs(tmp_path):
    model = keras_mpt.prompt_tune(llama(1e-5), CONFIG)
    model.save_adapter(tmp_path)
    other = llama(1e-6)
    other.set_weights(model.backbone.get_weights())
    with pytest.raises(
        ValueError,
        match=r"LlamaBackbone with `epsilon` \[1e-05\] of its layers, not \[1e-06\]; "
        r"`keras_mpt.backbone_from_pretrained` reads",
    ):
        keras_mpt.load_adapter(other, tmp_path)
    same = llama(1e-5)
    same.set_weights(model.backbone.get_weights())
    keras_mpt.load_adapter(same, tmp_path)


@only_torch
@pytest.mark.parametrize("noted", [None, {}, 3, {"of_tomorrow": [1]}, {"epsilon": [1e-5 + 1e-15]}])
def test_adapters_that_note_less_fit_as_before(noted):
    backbone = llama(1e-5)
    identity = backbone_identity(backbone)
    assert identity["settings"]["epsilon"] == [1e-5]
    assert backbone_difference({**identity, "settings": noted}, backbone) is None


@only_torch
@pytest.mark.parametrize("noted", [3, [], [1e-6], [1e-6, 1e-5], ["x"], [None]])
def test_other_settings_differ(noted):
    backbone = llama(1e-5)
    identity = {**backbone_identity(backbone), "settings": {"epsilon": noted}}
    wanted = f"with `epsilon` {re.escape(str(noted))} of its layers, not \\[1e-05\\]"
    assert re.search(wanted, backbone_difference(identity, backbone) or "nothing")


@only_torch
@pytest.mark.parametrize("kind", ["LlamaBackbone", "Llama3Backbone"])
def test_arguments_that_a_backbones_config_leaves_out_are_kept(kind, tmp_path):
    """keras-hub's Llama does not say that its output is its token table."""
    keras.utils.set_random_seed(0)
    backbone = getattr(keras_hub.models, kind)(
        vocabulary_size=30, num_layers=1, num_query_heads=2, num_key_value_heads=1, hidden_dim=8,
        intermediate_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    model = keras_mpt.prompt_tune(backbone, CONFIG)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.backbone.tie_word_embeddings
    assert len(loaded.backbone.weights) == len(backbone.weights)
    np.testing.assert_allclose(
        loaded.predict(INPUTS, verbose=0), model.predict(INPUTS, verbose=0), atol=1e-6
    )


@only_torch
def test_what_balances_experts_is_kept():
    backbone = keras_hub.models.QwenMoeBackbone(
        vocabulary_size=30, num_layers=1, num_query_heads=2, num_key_value_heads=1, hidden_dim=8,
        intermediate_dim=16, moe_intermediate_dim=8, shared_expert_intermediate_dim=8,
        num_experts=2, top_k=1, router_aux_loss_coefficient=0.5,
    )  # fmt: skip
    config = keras_mpt.prompt_tune(backbone, CONFIG).get_config()
    rebuilt = keras_mpt.models.PromptTunedCausalLM.from_config(config)
    assert rebuilt.backbone.router_aux_loss_coefficient == 0.5
