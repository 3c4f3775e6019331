"""Configs on disk: ours and PEFT's, each read by both."""

import dataclasses
import json
import warnings

import pytest

import keras_mpt
from keras_mpt import MultitaskPromptTuningConfig, PromptTuningConfig

NAMES = ("PromptTuningConfig", "MultitaskPromptTuningConfig")
CONFIG, OWN_CONFIG = "adapter_config.json", "keras_mpt_config.json"
# Every field that both configs share, away from its default.
FULL = {
    "task_type": "SEQ_2_SEQ_LM",
    "auto_mapping": {"base_model_class": "T5ForConditionalGeneration"},
    "peft_version": "0.0.1",
    "base_model_name_or_path": "some/t5",
    "revision": "abc",
    "inference_mode": True,
    "num_virtual_tokens": 7,
    "token_dim": 24,
    "num_transformer_submodules": 2,
    "num_attention_heads": 3,
    "num_layers": 5,
    "modules_to_save": ["classifier", "score"],
    "prompt_tuning_init": "TEXT",
    "prompt_tuning_init_text": "Is it good – or bad?",
    "tokenizer_name_or_path": "some/tokenizer",
    "tokenizer_kwargs": {"use_fast": False},
}
FULL_MULTITASK = {
    "prompt_tuning_init_state_dict_path": "source/adapter_model.bin",
    "prompt_tuning_init_task": 2,
    "num_ranks": 4,
    "num_tasks": 3,
}
OUR_FIELDS = {"prompt_position": "after_start", "seed": 11}
OUR_MULTITASK_FIELDS = {
    "task_init": "normal",
    "task_names": ["a", "b", "c"],
    "train_shared": False,
}


def full(name):
    """Every field of PEFT's config of that name, away from its default."""
    return FULL | (FULL_MULTITASK if name == "MultitaskPromptTuningConfig" else {})


def full_ours(name):
    return OUR_FIELDS | (OUR_MULTITASK_FIELDS if name == "MultitaskPromptTuningConfig" else {})


def write(directory, text, name=CONFIG):
    (directory / name).write_text(text if isinstance(text, str) else json.dumps(text))


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="PEFT writes and reads the files here")


@pytest.mark.parametrize("reader", [PromptTuningConfig, None], ids=["base_class", "own_class"])
@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name, reader, tmp_path):
    cls = getattr(keras_mpt, name)
    config = cls(**full(name), **full_ours(name))
    defaults = cls(num_virtual_tokens=1).to_dict()
    assert not [k for k, v in config.to_dict().items() if v == defaults[k] and k != "peft_type"]
    config.save_pretrained(tmp_path / "new" / "folder")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = (reader or cls).from_pretrained(tmp_path / "new" / "folder")
    assert type(found) is cls and found == config


@pytest.mark.parametrize("name", NAMES)
def test_peft_reads_ours(peft, name, tmp_path):
    config = getattr(keras_mpt, name)(**full(name), **full_ours(name))
    config.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert type(found) is getattr(peft, name)
    wanted = {k: v for k, v in config.to_dict().items() if k not in full_ours(name)}
    assert found.to_dict() == wanted


@pytest.mark.parametrize("name", NAMES)
def test_we_read_peft_s(peft, name, tmp_path):
    config = getattr(peft, name)(**full(name))
    config.save_pretrained(str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = PromptTuningConfig.from_pretrained(str(tmp_path))
    assert type(found) is getattr(keras_mpt, name)
    ours = {"prompt_position": "before", "seed": None}
    if name == "MultitaskPromptTuningConfig":
        ours |= {"task_init": "normal", "task_names": None, "train_shared": True}
    assert found.to_dict() == config.to_dict() | ours


def test_fields_of_the_own_file_stand_there_alone(tmp_path):
    config = MultitaskPromptTuningConfig(**FULL, **FULL_MULTITASK, **OUR_FIELDS)
    config.save_pretrained(tmp_path)
    own = json.loads((tmp_path / OWN_CONFIG).read_text())
    assert own == {**OUR_FIELDS, "task_init": "ones", "task_names": None, "train_shared": True}
    theirs = json.loads((tmp_path / CONFIG).read_text())
    assert theirs | own == config.to_dict() and not set(theirs) & set(own)


def test_sources_by_name_and_paths_round_trip(tmp_path):
    config = MultitaskPromptTuningConfig(
        num_virtual_tokens=4,
        num_tasks=2,
        prompt_tuning_init_task=("news", 1),
        prompt_tuning_init_state_dict_path=tmp_path / "source",
        tokenizer_name_or_path=tmp_path / "tokenizer",
    )
    config.save_pretrained(tmp_path)
    found = MultitaskPromptTuningConfig.from_pretrained(tmp_path)
    assert found == config
    assert found.prompt_tuning_init_task == ["news", 1]
    assert found.prompt_tuning_init_state_dict_path == str(tmp_path / "source")
    assert found.tokenizer_name_or_path == str(tmp_path / "tokenizer")


def test_unknown_keys_are_warned_of_and_left_out(tmp_path):
    config = PromptTuningConfig(num_virtual_tokens=4)
    values, _ = config.split_fields()
    # The second is a multitask field, which means nothing here; the third is no field of PEFT's.
    write(tmp_path, values | {"shiny": 1, "num_ranks": 2, "seed": 3})
    message = r"does not know; they are left out: \['num_ranks', 'seed', 'shiny'\]"
    with pytest.warns(UserWarning, match=message):
        found = PromptTuningConfig.from_pretrained(tmp_path)
    assert found == dataclasses.replace(config, prompt_position="before")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "`adapter_config.json` should be JSON.*which is broken"),
        ('{"peft_type": ', "`adapter_config.json` should be JSON.*which is broken"),
        ("[1, 2]", "`adapter_config.json` should be a JSON object.*with a list"),
        ('"text"', "`adapter_config.json` should be a JSON object.*with a str"),
        ("{}", "`peft_type` should be one of .*peft_type=None"),
        (
            {"peft_type": "LORA", "r": 8},
            "`peft_type` should be one of 'PROMPT_TUNING', 'MULTITASK_PROMPT_TUNING'.*'LORA'",
        ),
        ({"peft_type": "PROMPT_TUNING"}, "`num_virtual_tokens` should be a positive integer.*None"),
        (
            {"peft_type": "MULTITASK_PROMPT_TUNING", "num_virtual_tokens": 4, "num_tasks": "two"},
            "`num_tasks` should be a positive integer.*'two'",
        ),
    ],
)
def test_broken_files(content, message, tmp_path):
    write(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        PromptTuningConfig.from_pretrained(tmp_path)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / CONFIG).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="`adapter_config.json` should be JSON.*which is broken"):
        PromptTuningConfig.from_pretrained(tmp_path)


def test_broken_own_file(tmp_path):
    PromptTuningConfig(num_virtual_tokens=4).save_pretrained(tmp_path)
    write(tmp_path, "{", OWN_CONFIG)
    with pytest.raises(ValueError, match="`keras_mpt_config.json` should be JSON"):
        PromptTuningConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("directory", ["", "missing"])
def test_no_file(directory, tmp_path):
    message = "`adapter_config.json` should be a file in the adapter's directory.*no such file"
    with pytest.raises(ValueError, match=message):
        PromptTuningConfig.from_pretrained(tmp_path / directory)


def test_a_plain_config_is_no_multitask_config(tmp_path):
    PromptTuningConfig(num_virtual_tokens=4).save_pretrained(tmp_path)
    message = "should hold a config of MultitaskPromptTuningConfig.*peft_type='PROMPT_TUNING'"
    with pytest.raises(ValueError, match=message):
        MultitaskPromptTuningConfig.from_pretrained(tmp_path)


def test_saving_to_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ValueError, match="`directory` should be a directory.*a file"):
        PromptTuningConfig(num_virtual_tokens=4).save_pretrained(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("method", ["Lora", "PrefixTuning", "PromptEncoder", "IA3"])
def test_directories_of_peft_s_other_methods(peft, method, tmp_path):
    given = {"num_virtual_tokens": 4} if method.startswith("P") else {}
    config = getattr(peft, f"{method}Config")(task_type="CAUSAL_LM", **given)
    config.save_pretrained(tmp_path)
    message = (
        "`peft_type` should be one of 'PROMPT_TUNING', 'MULTITASK_PROMPT_TUNING'. Received: "
        f"peft_type='{config.peft_type.value}'"
    )
    with pytest.raises(ValueError, match=message):
        keras_mpt.PromptTuningConfig.from_pretrained(tmp_path)
