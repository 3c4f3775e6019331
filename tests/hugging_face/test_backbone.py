"""`backbone_from_pretrained`: transformers' numbers, whatever keras-hub's converters drop."""

import json
import warnings

import keras_hub
import pytest
import safetensors.torch

import keras_mpt
from tests.marks import only_torch
from tests.parity import families
from tests.parity.measure import TOLERANCE, Pair, _randomize, base_difference, load, save, torch

# Of what keras-hub drops, what no row of tests/parity/families.py has: families, and values in
# their configurations beside the rows' own.
_WINDOW = {"use_sliding_window": True, "sliding_window": 4}
_LINEAR = {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}}
DROPPED = [
    *(
        (name, {"rms_norm_eps": 1e-3})
        for name in ("llama", "mistral", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3")
    ),
    *((name, {"rms_norm_eps": 1e-6}) for name in ("llama", "mistral")),
    *((name, {"layer_norm_eps": 1e-3}) for name in ("bert", "roberta", "xlm_roberta", "albert")),
    ("gpt2", {"layer_norm_epsilon": 1e-3}),
    *((name, {"hidden_act": "relu"}) for name in ("bert", "roberta", "llama", "qwen", "mistral")),
    *((name, {"hidden_act": "gelu_new"}) for name in ("bert", "roberta", "albert")),
    ("distilbert", {"activation": "relu"}),
    ("gpt2", {"activation_function": "gelu"}),
    ("bart", {"activation_function": "relu"}),
    *((name, {"query_pre_attn_scalar": 32}) for name in ("gemma2", "gemma3")),
    ("gemma2", {"head_dim": 12}),
    ("gemma2", {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 4}),
    ("gemma3", {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 4}),
    ("gpt_oss", {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 4}),
    ("qwen_moe", {**_WINDOW, "max_window_layers": 1}),
    *((name, _LINEAR) for name in ("mistral", "qwen", "gemma")),
    ("gemma", {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}),
    *((name, {"tie_word_embeddings": True}) for name in ("mistral", "mixtral", "qwen_moe")),
    *(("bert", {"type_vocab_size": n}) for n in (1, 3)),
]
# One of each kind of rule, for the backends that compile.
ON_ALL = [("llama", {"rms_norm_eps": 1e-3}), ("roberta", {}), ("gemma3", {}), ("mistral", {})]


def saved(folder, name, **changes):
    """A random model of a family on disk, and itself."""
    family = families.variant(name, **changes)
    torch.manual_seed(0)
    base = family.make().eval()
    _randomize(base)
    save(family, base, folder)
    return family, base


def difference(folder, name, **changes):
    """How far our backbone is from transformers' model."""
    family, base = saved(folder, name, **changes)
    backbone = keras_mpt.backbone_from_pretrained(folder)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=family.task_type, num_virtual_tokens=2, num_tasks=2
    )
    ours = None if family.task_type == "SEQ_CLS" else keras_mpt.prompt_tune(backbone, config)
    return base_difference(Pair(family, base, None, backbone, folder, ours))


def edit(folder, changes, removed=()):
    """Changes `config.json` by hand."""
    config = json.loads((folder / "config.json").read_text())
    config = {k: v for k, v in {**config, **changes}.items() if k not in removed}
    (folder / "config.json").write_text(json.dumps(config))


def ids_name(value):
    return value if isinstance(value, str) else ",".join(f"{k}={v}" for k, v in value.items())


@only_torch
@pytest.mark.parametrize(("name", "changes"), DROPPED, ids=ids_name)
def test_what_converters_drop_is_set_right(name, changes, tmp_path):
    assert difference(tmp_path, name, **changes) <= TOLERANCE


@pytest.mark.parametrize(("name", "changes"), ON_ALL, ids=ids_name)
def test_on_every_backend(name, changes, tmp_path):
    assert difference(tmp_path, name, **changes) <= TOLERANCE


@only_torch
def test_configurations_of_before_transformers_5(tmp_path):
    """Rotary positions stood elsewhere."""
    family, base = saved(tmp_path, "llama")
    rope = dict(family.make.keywords["rope_parameters"])
    older = {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    edit(tmp_path, older, removed=["rope_parameters"])
    backbone = keras_mpt.backbone_from_pretrained(tmp_path, verify=True)
    assert backbone.rope_max_wavelength == 500_000.0
    _, base = saved(tmp_path / "gemma3", "gemma3")
    older = {"rope_theta": 1e6, "rope_local_base_freq": 1e4}
    older["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
    edit(tmp_path / "gemma3", older, removed=["rope_parameters"])
    keras_mpt.backbone_from_pretrained(tmp_path / "gemma3", verify=True)


def t5gemma(folder, name, encoder, decoder):
    """A random T5Gemma on disk, and itself, whose sides have these values."""
    family = families.variant(name)
    config = family.make().config
    text = getattr(config.encoder, "text_config", config.encoder)
    for part, changes in ((text, encoder), (config.decoder, decoder)):
        for key, value in changes.items():
            setattr(part, key, value)
    torch.manual_seed(0)
    base = type(family.make())(config).eval()
    _randomize(base)
    save(family, base, folder)
    return family, base


@only_torch
@pytest.mark.parametrize("name", ["t5gemma", "t5gemma2"])
def test_two_sides(name, tmp_path):
    """Values other than the row's on both sides, and those that keras-hub has no two of."""
    both = {"rms_norm_eps": 1e-3, "query_pre_attn_scalar": 32, "hidden_activation": "relu"}
    family, base = t5gemma(tmp_path, name, both, both)
    backbone = load(tmp_path)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=family.task_type, num_virtual_tokens=2, num_tasks=2
    )
    model = keras_mpt.prompt_tune(backbone, config)
    assert base_difference(Pair(family, base, None, backbone, tmp_path, model)) <= TOLERANCE
    for field, value in both.items():
        t5gemma(tmp_path, name, {}, {field: value})
        with pytest.raises(ValueError, match=f"`encoder.{field}` should be {value}"):
            load(tmp_path)


@only_torch
def test_wavelengths_of_two_sides(tmp_path):
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    t5gemma(tmp_path, "t5gemma", rope, {})
    with pytest.warns(UserWarning, match="sliding_window"):
        keras_mpt.backbone_from_pretrained(tmp_path, verify=True)


@only_torch
def test_shards_and_half_precision(tmp_path):
    _, base = saved(tmp_path, "smollm2")
    (tmp_path / "model.safetensors").unlink()
    base.half().save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    backbone = keras_mpt.backbone_from_pretrained(tmp_path, dtype="bfloat16", verify=True)
    assert backbone.compute_dtype == "bfloat16"


@only_torch
def test_t5_comes_through_the_same_door(tmp_path):
    saved(tmp_path, "t5_v1_1")
    backbone = keras_mpt.backbone_from_pretrained(tmp_path, verify=True)
    assert isinstance(backbone, keras_hub.models.T5Backbone)


_DYNAMIC = {
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0},
    }
}
REFUSED = [
    ("llama", {"attention_bias": True}, r"no place for, such as .*k_proj\.bias"),
    ("llama", {"mlp_bias": True}, r"no place for, such as .*down_proj\.bias"),
    ("llama", {"head_dim": 12}, "`head_dim` should be 8"),
    ("llama", _LINEAR, "`rope_type` should be 'llama3' or 'default'"),
    ("gemma3", _DYNAMIC, "`rope_type` should be 'linear' or 'default'"),
    ("llama", {"hidden_act": "tanh"}, "`hidden_act` should be 'gelu' or"),
    ("smollm3", {"tie_word_embeddings": False}, r"such as \['lm_head.weight'\]"),
    ("smollm3", {"hidden_act": "relu"}, "`hidden_act` should be 'silu'"),
    ("gemma3", {"attn_logit_softcapping": 2.0}, "`attn_logit_softcapping` should be None"),
    ("roberta", {"pad_token_id": 0}, "`pad_token_id` should be 1"),
    ("esm", {"position_embedding_type": "absolute"}, "`position_embedding_type` should be rotary"),
    ("gpt2", {"n_inner": 32}, "`n_inner` should be 4"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "`scale_attn_by_inverse_layer_idx`"),
    ("gpt2", {"scale_attn_weights": False}, "`scale_attn_weights` should be True"),
    ("bart", {"scale_embedding": True}, "`scale_embedding` should be False"),
    ("bart", {"decoder_layers": 1}, "`decoder_layers` should be 2"),
    ("bart", {"decoder_attention_heads": 4}, "`decoder_attention_heads` should be 2"),
    ("qwen3_moe", {"mlp_only_layers": [0]}, r"`mlp_only_layers` should be \[\]"),
    ("qwen_moe", {"decoder_sparse_step": 2}, "`decoder_sparse_step` should be 1"),
]


@only_torch
@pytest.mark.parametrize(("name", "changes", "message"), REFUSED, ids=ids_name)
def test_what_cannot_be_set_right_is_refused_by_name(name, changes, message, tmp_path):
    saved(tmp_path, name, **changes)
    with pytest.raises(ValueError, match=message):
        keras_mpt.backbone_from_pretrained(tmp_path)


@only_torch
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "umt5"}, "`model_type` should be 't5' or 'mt5'"),
        ({"model_type": "bloom"}, "`model_type` should be that of a text model"),
        ({"model_type": "vit"}, "Received: model_type='vit'"),
        ({"model_type": 3}, "`model_type` should be a string"),
        ({"quantization_config": {"quant_method": "gptq"}}, "`quantization_config` should be None"),
        ({"hidden_act": {}}, "should hold transformers' configuration.* TypeError"),
        ({"num_attention_heads": None}, "should hold transformers' configuration.* TypeError"),
        ({"vocab_size": 61}, "`folder` should hold a model that keras-hub reads"),
        ({"num_hidden_layers": 3}, "does not contain tensor"),
    ],
)
def test_other_folders_are_refused(changes, message, tmp_path):
    saved(tmp_path, "smollm2")
    edit(tmp_path, changes)
    with pytest.raises(ValueError, match=message):
        keras_mpt.backbone_from_pretrained(tmp_path)


@only_torch
def test_a_configuration_that_lacks_a_field(tmp_path):
    saved(tmp_path, "smollm2")
    edit(tmp_path, {}, removed=["vocab_size"])
    with pytest.raises(ValueError, match="keras-hub says KeyError: 'vocab_size'"):
        keras_mpt.backbone_from_pretrained(tmp_path)


@only_torch
def test_a_folder_without_a_configuration(tmp_path):
    with pytest.raises(ValueError, match=r"`folder` should be a folder with a config\.json"):
        keras_mpt.backbone_from_pretrained(tmp_path)


def weights_of(folder):
    """The weights in a folder, by name."""
    return safetensors.torch.load_file(folder / "model.safetensors")


def write_weights(folder, state):
    """Gives a folder other weights."""
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@only_torch
def test_weights_that_change_nothing_may_be_left_out(tmp_path):
    """Biases of zeros, which some files hold, and a head that another task trained."""
    saved(tmp_path, "llama")
    state = weights_of(tmp_path)
    state["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(16)
    state["score.weight"] = torch.ones(2, 16)
    write_weights(tmp_path, state)
    keras_mpt.backbone_from_pretrained(tmp_path)
    state["model.layers.0.self_attn.q_proj.bias"][3] = 1e-3
    write_weights(tmp_path, state)
    with pytest.raises(ValueError, match=r"with 1 that it has no place for.*0\.self_attn\.q_proj"):
        keras_mpt.backbone_from_pretrained(tmp_path)


@only_torch
def test_a_head_beside_a_table_that_serves_for_logits(tmp_path):
    """A copy is passed over; another one is what transformers takes."""
    saved(tmp_path, "smollm2")
    state = weights_of(tmp_path)
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    write_weights(tmp_path, state)
    keras_mpt.backbone_from_pretrained(tmp_path)
    state["lm_head.weight"][3, 4] += 1
    write_weights(tmp_path, state)
    with pytest.raises(ValueError, match=r"such as \['lm_head.weight'\]"):
        keras_mpt.backbone_from_pretrained(tmp_path)


@only_torch
def test_a_bias_of_bart_s_logits(tmp_path):
    _, base = saved(tmp_path, "bart")
    base.final_logits_bias += 0.5
    base.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="final_logits_bias"):
        keras_mpt.backbone_from_pretrained(tmp_path)


WARNED = [
    ("esm", {}, "`token_dropout`.*0.88"),
    ("gemma2", {"hidden_activation": "gelu"}, "`hidden_activation`.*tanh"),
    ("qwen3", {**_WINDOW, "max_window_layers": 1}, "`sliding_window`.* is 4"),
    ("t5gemma", {}, "`sliding_window`.* is 64"),
]


@only_torch
@pytest.mark.parametrize(("name", "changes", "message"), WARNED, ids=ids_name)
def test_what_is_nearly_right_is_warned_of_by_name(name, changes, message, tmp_path):
    saved(tmp_path, name, **changes)
    with pytest.warns(UserWarning, match=message):
        keras_mpt.backbone_from_pretrained(tmp_path)


@only_torch
def test_released_values_are_not_warned_of(tmp_path):
    saved(tmp_path, "qwen3", use_sliding_window=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras_mpt.backbone_from_pretrained(tmp_path)


@only_torch
@pytest.mark.parametrize("name", ["bert", "llama", "bart", "gemma4"])
def test_verify_compares_with_transformers(name, tmp_path):
    saved(tmp_path, name)
    keras_mpt.backbone_from_pretrained(tmp_path, verify=True)


@only_torch
@pytest.mark.parametrize("name", ["esm", "qwen3_5"])
def test_names_that_transformers_5_writes(name, tmp_path):
    """Published files, which the converters are made for, have others."""
    base = families.variant(name).make().eval()
    _randomize(base)
    base.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        keras_mpt.backbone_from_pretrained(tmp_path, verify=True)


@only_torch
def test_verify_refuses_other_numbers(tmp_path):
    saved(tmp_path, "gemma2", hidden_activation="gelu")
    with (
        pytest.warns(UserWarning, match="tanh"),
        pytest.raises(ValueError, match=r"transformers' to 1e-05 .* differs by \S+e-0[34]"),
    ):
        keras_mpt.backbone_from_pretrained(tmp_path, verify=True)


@only_torch
def test_verify_without_transformers(tmp_path, monkeypatch):
    saved(tmp_path, "smollm2")
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match="`verify=True` compares with transformers"):
        keras_mpt.backbone_from_pretrained(tmp_path, verify=True)
    keras_mpt.backbone_from_pretrained(tmp_path)
