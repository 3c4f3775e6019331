"""The configs against PEFT's own dataclasses, and their rules."""

import dataclasses

import numpy as np
import pytest

import keras_mpt
from keras_mpt import MultitaskPromptTuningConfig, PromptTuningConfig

NAMES = ("PromptTuningConfig", "MultitaskPromptTuningConfig")
CLASSES = {name: getattr(keras_mpt, name) for name in NAMES}
OURS = {
    "PromptTuningConfig": {"label_names", "label_words", "prompt_position", "seed"},
    "MultitaskPromptTuningConfig": {
        "frozen_tasks",
        "label_names",
        "label_words",
        "prompt_position",
        "seed",
        "task_init",
        "task_names",
        "train_shared",
    },
}


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="PEFT's dataclasses are the reference here")


@pytest.mark.parametrize("name", NAMES)
def test_fields_and_defaults_are_peft_s(peft, name):
    theirs = {f.name: f.default for f in dataclasses.fields(getattr(peft, name))}
    ours = {f.name: f.default for f in dataclasses.fields(CLASSES[name])}
    assert set(ours) - set(theirs) == OURS[name]
    assert {k: ours[k] for k in theirs} == theirs
    # The values above are plain; what a config makes of them is equal too. PEFT fills in its own
    # version, which is not ours to claim.
    made = getattr(peft, name)(num_virtual_tokens=4).to_dict()
    found = CLASSES[name](num_virtual_tokens=4).to_dict()
    assert {k: found[k] for k in made} == {**made, "peft_version": None}


def test_enums_are_peft_s(peft):
    def values(enumeration):
        return {m.value for m in enumeration}

    assert values(keras_mpt.TaskType) == values(peft.TaskType)
    assert values(keras_mpt.PeftType) < values(peft.PeftType)
    assert values(keras_mpt.PromptTuningInit) == values(peft.PromptTuningInit)
    multitask = values(keras_mpt.MultitaskPromptTuningInit)
    assert multitask - values(peft.MultitaskPromptTuningInit) == {"SAMPLE_VOCAB"}
    assert values(peft.MultitaskPromptTuningInit) < multitask


@pytest.mark.parametrize(
    ("field", "enumeration", "member"),
    [
        ("task_type", keras_mpt.TaskType, "CAUSAL_LM"),
        ("peft_type", keras_mpt.PeftType, "MULTITASK_PROMPT_TUNING"),
        ("prompt_tuning_init", keras_mpt.MultitaskPromptTuningInit, "SAMPLE_VOCAB"),
    ],
)
def test_an_enum_or_its_string(field, enumeration, member):
    configs = [
        MultitaskPromptTuningConfig(num_virtual_tokens=4, **{field: value})
        for value in (member, enumeration(member))
    ]
    assert configs[0] == configs[1]
    assert type(getattr(configs[0], field)) is enumeration
    assert configs[0].to_dict()[field] == member and type(configs[0].to_dict()[field]) is str


def test_a_seed_of_numpy_s_is_a_plain_one():
    assert type(PromptTuningConfig(num_virtual_tokens=4, seed=np.int64(3)).seed) is int


def test_peft_s_enum_is_taken(peft):
    config = PromptTuningConfig(num_virtual_tokens=4, task_type=peft.TaskType.SEQ_CLS)
    assert config.task_type is keras_mpt.TaskType.SEQ_CLS


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (
            "both",
            {"seed": -1},
            "`seed` should be an integer, 0 or more, or None. Received: seed=-1",
        ),
        ("both", {"seed": "a"}, "`seed` should be an integer, 0 or more, or None"),
        ("both", {"task_type": "SEQ_CLASS"}, "`task_type` should be one of 'SEQ_CLS', 'SEQ_2_SEQ"),
        ("both", {"task_type": 3}, "`task_type` should be one of .*task_type=3"),
        ("both", {"peft_type": "LORA"}, "`peft_type` should be one of 'PROMPT_TUNING', 'MULTITASK"),
        (
            "PromptTuningConfig",
            {"peft_type": "MULTITASK_PROMPT_TUNING"},
            "`peft_type` should be 'PROMPT_TUNING' for PromptTuningConfig; it sets itself",
        ),
        (
            "MultitaskPromptTuningConfig",
            {"peft_type": "PROMPT_TUNING"},
            "`peft_type` should be 'MULTITASK_PROMPT_TUNING' for MultitaskPromptTuningConfig",
        ),
        (
            "PromptTuningConfig",
            {"prompt_tuning_init": "EXACT_SOURCE_TASK"},
            "`prompt_tuning_init` should be one of 'TEXT', 'SAMPLE_VOCAB', 'RANDOM'. Received",
        ),
        (
            "MultitaskPromptTuningConfig",
            {"prompt_tuning_init": "random"},
            "`prompt_tuning_init` should be one of 'TEXT', 'RANDOM', 'SAMPLE_VOCAB', 'AVERAGE_SOU"
            "RCE_TASKS', 'EXACT_SOURCE_TASK', 'ONLY_SOURCE_SHARED'. Received.*'random'",
        ),
        (
            "both",
            {"prompt_tuning_init": "TEXT"},
            "`prompt_tuning_init_text` should be given when prompt_tuning_init='TEXT'",
        ),
        (
            "both",
            {"tokenizer_kwargs": {"use_fast": True}},
            "`tokenizer_kwargs` should be given only with prompt_tuning_init='TEXT'.*'RANDOM'",
        ),
        (
            "both",
            {"prompt_position": "behind"},
            "`prompt_position` should be 'before', 'after_star",
        ),
        *[
            (
                "both",
                {"num_transformer_submodules": wrong},
                f"`num_transformer_submodules` should be 1 .*{wrong}",
            )
            for wrong in (0, 3, True)
        ],
        *[
            (
                "both",
                {"num_virtual_tokens": wrong},
                f"`num_virtual_tokens` should be a positive integer.*{wrong!r}",
            )
            for wrong in (None, 0, -1, 2.0, "4", True)
        ],
        *[
            ("both", {field: 0}, f"`{field}` should be a positive integer. Received: {field}=0")
            for field in ("token_dim", "num_attention_heads", "num_layers")
        ],
        *[
            (
                "MultitaskPromptTuningConfig",
                {field: wrong},
                f"`{field}` should be a positive integer. Received: {field}={wrong!r}",
            )
            for field in ("num_tasks", "num_ranks")
            for wrong in (0, -2, 1.5, None, False)
        ],
        *[
            (
                "MultitaskPromptTuningConfig",
                {"prompt_tuning_init": start},
                f"`prompt_tuning_init_state_dict_path` should be .* prompt_tuning_init='{start}'",
            )
            for start in ("AVERAGE_SOURCE_TASKS", "EXACT_SOURCE_TASK", "ONLY_SOURCE_SHARED")
        ],
        (
            "MultitaskPromptTuningConfig",
            {"train_shared": "no"},
            "`train_shared` should be True or False. Received: train_shared='no'",
        ),
        (
            "MultitaskPromptTuningConfig",
            {"task_init": "zeros"},
            "`task_init` should be 'ones' .* or 'normal' .*'zeros'",
        ),
        *[
            (
                "MultitaskPromptTuningConfig",
                {"task_names": wrong, "num_tasks": 2},
                "`task_names` should be 2 different strings",
            )
            for wrong in (
                ["a"],
                ["a", "a"],
                ["a", "a", "b"],
                ["a", ""],
                ["a", 1],
                "ab",
                5,
                [[], []],
            )
        ],
        *[
            (
                "MultitaskPromptTuningConfig",
                {"prompt_tuning_init_task": wrong, "num_tasks": 2},
                r"`prompt_tuning_init_task` should be .* \(num_tasks=2\)",
            )
            for wrong in ([0], [0, 1, 2], [])
        ],
    ],
)
def test_refused(name, fields, message):
    for class_name in NAMES if name == "both" else (name,):
        with pytest.raises(ValueError, match=message):
            CLASSES[class_name](**{"num_virtual_tokens": 4, **fields})


@pytest.mark.parametrize(
    ("task_type", "given", "submodules"),
    [(None, None, 1), ("CAUSAL_LM", None, 1), ("SEQ_2_SEQ_LM", None, 2), ("SEQ_2_SEQ_LM", 1, 1)],
)
def test_submodules(task_type, given, submodules):
    config = PromptTuningConfig(
        num_virtual_tokens=5, task_type=task_type, num_transformer_submodules=given
    )
    assert (config.submodules, config.total_virtual_tokens) == (submodules, 5 * submodules)


def test_names_of_tasks():
    unnamed = MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=2)
    named = MultitaskPromptTuningConfig(num_virtual_tokens=4, num_tasks=2, task_names=("x", "y"))
    assert (unnamed.names, named.names) == (["task_0", "task_1"], ["x", "y"])


def test_positional_arguments_are_refused():
    """PEFT's and our fields stand in a different order, so a position would mean another field."""
    with pytest.raises(TypeError, match="positional"):
        PromptTuningConfig("SEQ_CLS")


def test_names_that_keras_logs_under():
    for name in ("val", "val_tone"):
        message = (
            f"`task_names` should not be 'val' or begin with 'val_'.* task_names with '{name}'"
        )
        with pytest.raises(ValueError, match=message):
            MultitaskPromptTuningConfig(num_virtual_tokens=2, num_tasks=2, task_names=["a", name])
