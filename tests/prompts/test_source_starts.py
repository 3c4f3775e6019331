"""Starts from an adapter that was trained on source tasks, against PEFT's own."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import keras_mpt
from keras_mpt import MultitaskPromptTuningConfig
from keras_mpt.prompts.starts import start_values
from tests import tiny
from tests.prompts.helpers import NEEDS_PEFT

LENGTH, WIDTH, TASKS, RANKS = 4, tiny.WIDTH, 3, 2
SAFETENSORS, BIN = "adapter_model.safetensors", "adapter_model.bin"
KEYS = ("prompt_embeddings", "prefix_task_cols", "prefix_task_rows")


def start(path, init="EXACT_SOURCE_TASK", width=WIDTH, **kwargs):
    """The start of a config that reads a source."""
    kwargs = {"num_virtual_tokens": LENGTH, "num_ranks": RANKS, **kwargs}
    config = MultitaskPromptTuningConfig(
        prompt_tuning_init=init, prompt_tuning_init_state_dict_path=str(path), **kwargs
    )
    return start_values(config, None, tiny.VOCABULARY, width)


@pytest.fixture(scope="module", params=[1, 2], ids=["one_stack", "encoder_decoder"])
def peft_source(request, tmp_path_factory):
    """An adapter that PEFT wrote, as .safetensors and as .bin, and its M."""
    peft = pytest.importorskip("peft", reason=NEEDS_PEFT)
    import torch
    import transformers

    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if request.param == 1:
        sizes = {"n_embd": WIDTH, "n_layer": 1, "n_head": 2, "n_positions": 32}
        config = transformers.GPT2Config(vocab_size=50, **sizes, **ids)
        base, task_type = transformers.GPT2LMHeadModel(config), "CAUSAL_LM"
    else:
        sizes = {"d_model": WIDTH, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2}
        config = transformers.T5Config(vocab_size=50, decoder_start_token_id=0, **sizes, **ids)
        base, task_type = transformers.T5ForConditionalGeneration(config), "SEQ_2_SEQ_LM"
    config = peft.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=LENGTH, num_tasks=TASKS, num_ranks=RANKS
    )
    model = peft.get_peft_model(base, config)
    # The factors start so small that a wrong one would go unnoticed.
    for weight in model.prompt_encoder["default"].parameters():
        torch.nn.init.normal_(weight)
    folder = tmp_path_factory.mktemp("peft")
    model.save_pretrained(folder / "safetensors", safe_serialization=True)
    model.save_pretrained(folder / "bin", safe_serialization=False)
    return folder, request.param


def peft_start(path, init, submodules, task=0):
    """PEFT's module after the start, as arrays."""
    import peft
    import torch

    config = peft.MultitaskPromptTuningConfig(
        prompt_tuning_init=init,
        prompt_tuning_init_state_dict_path=str(path),
        prompt_tuning_init_task=task,
        num_virtual_tokens=LENGTH,
        num_ranks=RANKS,
        num_transformer_submodules=submodules,
        token_dim=WIDTH,
    )
    module = peft.tuners.MultitaskPromptEmbedding(config, torch.nn.Embedding(2, WIDTH))
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    state["prompt_embeddings"] = state.pop("embedding.weight")
    return state


@pytest.mark.parametrize("path", [f"safetensors/{SAFETENSORS}", f"bin/{BIN}"])
@pytest.mark.parametrize(
    ("init", "task"), [("AVERAGE_SOURCE_TASKS", 0), ("EXACT_SOURCE_TASK", 2)], ids=str
)
def test_equals_peft(peft_source, path, init, task):
    folder, submodules = peft_source
    wanted = peft_start(folder / path, init, submodules, task)
    assert wanted["prompt_embeddings"].shape == (submodules * LENGTH, WIDTH)
    for given in (folder / path, (folder / path).parent):
        found = start(
            given, init, prompt_tuning_init_task=task, num_transformer_submodules=submodules
        )
        assert set(found) == set(KEYS)
        for name in KEYS:
            np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("task_init", ["ones", "normal"])
def test_only_source_shared_equals_peft(peft_source, task_init):
    folder, submodules = peft_source
    path = folder / "safetensors" / SAFETENSORS
    wanted = peft_start(path, "ONLY_SOURCE_SHARED", submodules)
    found = start(
        path,
        "ONLY_SOURCE_SHARED",
        num_tasks=200,
        task_init=task_init,
        num_transformer_submodules=submodules,
    )
    np.testing.assert_array_equal(found["prompt_embeddings"], wanted["prompt_embeddings"])
    scale = found["prefix_task_cols"] @ found["prefix_task_rows"]
    assert scale.shape == (200, submodules * LENGTH, WIDTH)
    if task_init == "ones":
        np.testing.assert_array_equal(scale, np.ones_like(scale))
    else:  # As PEFT draws them: 0.02² · √R.
        assert scale.std() == pytest.approx(0.02**2 * RANKS**0.5, rel=0.1)


def test_several_target_tasks_each_as_peft_starts_one(peft_source):
    folder, submodules = peft_source
    path = folder / "safetensors" / SAFETENSORS
    sources = [2, 0, 0, 1]
    kwargs = {"num_tasks": 4, "num_transformer_submodules": submodules}
    found = start(path, prompt_tuning_init_task=sources, **kwargs)
    averages = start(path, "AVERAGE_SOURCE_TASKS", **kwargs)
    average = peft_start(path, "AVERAGE_SOURCE_TASKS", submodules)
    for target, source in enumerate(sources):
        exact = peft_start(path, "EXACT_SOURCE_TASK", submodules, source)
        for name in ("prefix_task_cols", "prefix_task_rows"):
            np.testing.assert_array_equal(found[name][target], exact[name][0])
            np.testing.assert_allclose(averages[name][target], average[name][0], atol=1e-7)


def test_sources_by_name_from_our_own_adapter(tmp_path):
    """A source model is trained and saved; a target model then starts from it."""
    backbone = tiny.backbone("bert")
    sizes = {"num_virtual_tokens": LENGTH, "num_ranks": RANKS}
    config = MultitaskPromptTuningConfig(
        num_tasks=TASKS, task_names=["news", "mail", "chat"], task_init="normal", **sizes
    )
    source = keras_mpt.prompt_tune(backbone, config)
    source.save_adapter(tmp_path / "source")
    target = MultitaskPromptTuningConfig(
        num_tasks=4,
        prompt_tuning_init="EXACT_SOURCE_TASK",
        prompt_tuning_init_state_dict_path=tmp_path / "source",
        prompt_tuning_init_task=["chat", "news", 1, "chat"],
        **sizes,
    )
    found = keras_mpt.prompt_tune(backbone, target).prompt.get_peft_state_dict()
    wanted = source.prompt.get_peft_state_dict()
    np.testing.assert_array_equal(found["prompt_embeddings"], wanted["prompt_embeddings"])
    for name in ("prefix_task_cols", "prefix_task_rows"):
        np.testing.assert_array_equal(found[name], wanted[name][[2, 0, 1, 2]])
    # By the file alone, the names beside it are found too.
    by_file = start(tmp_path / "source" / SAFETENSORS, prompt_tuning_init_task="mail")
    np.testing.assert_array_equal(by_file["prefix_task_cols"], wanted["prefix_task_cols"][[1]])


@pytest.fixture
def source(tmp_path):
    """A written source of three tasks, with names."""
    rng = np.random.default_rng(0)
    shapes = [(LENGTH, WIDTH), (TASKS, LENGTH, RANKS), (TASKS, RANKS, WIDTH)]
    state = {k: rng.normal(size=s).astype("float32") for k, s in zip(KEYS, shapes, strict=True)}
    save_file(state, tmp_path / SAFETENSORS)
    names = {"task_names": ["news", "mail", "chat"]}
    (tmp_path / "keras_mpt_config.json").write_text(json.dumps(names))
    return tmp_path


@pytest.mark.parametrize("task", [3, -1, True, None, "mood", [0, "Chat"]])
def test_wrong_source_tasks(source, task):
    wrong = task[-1] if isinstance(task, list) else task
    message = (
        r"`prompt_tuning_init_task` should be a source task in \[0, 3\) or one of \['news', 'mail'"
        rf", 'chat'\]. Received: prompt_tuning_init_task={wrong!r} for "
    )
    with pytest.raises(ValueError, match=message):
        start(source, prompt_tuning_init_task=task, num_tasks=2)


def test_name_of_a_source_without_names(source):
    (source / "keras_mpt_config.json").unlink()
    message = r"should be a source task in \[0, 3\). Received: prompt_tuning_init_task='news'"
    with pytest.raises(ValueError, match=message):
        start(source, prompt_tuning_init_task="news")


def test_broken_names(source):
    (source / "keras_mpt_config.json").write_text("[")
    with pytest.raises(ValueError, match="`keras_mpt_config.json` should be JSON.*which is broken"):
        start(source)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"width": 8}, r"`prompt_embeddings` in .* should have shape \(4, 8\).*\(4, 16\)"),
        ({"num_virtual_tokens": 5}, r"`prompt_embeddings` in .*shape \(5, 16\).*\(4, 16\)"),
        ({"num_transformer_submodules": 2}, r"`prompt_embeddings` in .*\(8, 16\).*\(4, 16\)"),
        ({"num_ranks": 3}, r"`prefix_task_cols` in .* should have shape \(3, 4, 3\).*\(3, 4, 2\)"),
    ],
)
def test_sources_that_do_not_fit(source, kwargs, message):
    for init in ("EXACT_SOURCE_TASK", "AVERAGE_SOURCE_TASKS"):
        with pytest.raises(ValueError, match=message):
            start(source, init, **kwargs)


def test_only_the_shared_prompt_must_fit_where_only_it_is_read(source):
    found = start(source, "ONLY_SOURCE_SHARED", num_ranks=3, num_tasks=5)
    wanted = load_file(source / SAFETENSORS)["prompt_embeddings"]
    np.testing.assert_array_equal(found["prompt_embeddings"], wanted)
    assert found["prefix_task_cols"].shape == (5, LENGTH, 3)


@pytest.mark.parametrize("key", KEYS)
def test_missing_keys(source, key):
    state = load_file(source / SAFETENSORS)
    del state[key]
    save_file(state, source / SAFETENSORS)
    with pytest.raises(ValueError, match=f"state_dict_path` should hold '{key}'.*{list(state)[0]}"):
        start(source)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("prefix_task_cols", np.ravel, r"'prefix_task_cols' of shape \(num_tasks, num_virtual_to"),
        ("prefix_task_rows", lambda x: x[:2], r"`prefix_task_rows` .*\(3, 2, 16\).*\(2, 2, 16\)"),
        ("prompt_embeddings", lambda x: x * np.nan, "`prompt_embeddings` .* be finite.* 64 values"),
        ("prefix_task_rows", lambda x: x.astype("int32"), "`prefix_task_rows` .*dtype int32"),
    ],
)
def test_broken_values(source, key, change, message):
    state = load_file(source / SAFETENSORS)
    save_file({**state, key: change(state[key])}, source / SAFETENSORS)
    with pytest.raises(ValueError, match=message):
        start(source)


def test_a_module_s_own_state_dict(source):
    """PEFT's module calls P `embedding.weight` where it is saved by itself."""
    state = load_file(source / SAFETENSORS)
    wanted = start(source, prompt_tuning_init_task=1)
    state["embedding.weight"] = state.pop("prompt_embeddings")
    save_file(state, source / SAFETENSORS)
    found = start(source, prompt_tuning_init_task=1)
    for name in KEYS:
        np.testing.assert_array_equal(found[name], wanted[name])
