"""Sizes, numbers and flags: NumPy's are taken everywhere, a bool for a size nowhere."""

import json

import keras
import numpy as np
import pytest

import keras_mpt
from keras_mpt import checks
from tests import tiny
from tests.marks import only_eager

# They look at arguments before any backend has a say.
pytestmark = only_eager

CONFIG, MULTITASK = keras_mpt.PromptTuningConfig, keras_mpt.MultitaskPromptTuningConfig
DATA = {"a": (["x", "y", "z"], [0, 1, 0]), "b": (["u", "v", "w"], [0, 1, 0])}


def layer(**sizes):
    sizes = {"num_virtual_tokens": 4, "token_dim": 4, "num_tasks": 4, **sizes}
    return keras_mpt.MultitaskPromptEmbedding(**sizes)


def model(**kwargs):
    config = MULTITASK(num_virtual_tokens=2, num_tasks=2)
    return keras_mpt.models.PromptTunedTextClassifier(tiny.backbone("plain"), config, **kwargs)


def language_model():
    config = MULTITASK(num_virtual_tokens=2, num_tasks=2, task_type="CAUSAL_LM")
    return keras_mpt.prompt_tune(tiny.backbone("gpt2"), config)


IDS = np.array([[5, 6, 0, 0]])
TEXT = {"token_ids": IDS, "padding_mask": IDS != 0, "task_ids": [0]}
# A call for each argument that is a size, given 4 or something else.
SIZES = {
    "num_virtual_tokens": lambda n: layer(num_virtual_tokens=n),
    "token_dim": lambda n: keras_mpt.PromptEmbedding(4, n),
    "num_tasks": lambda n: layer(num_tasks=n),
    "num_ranks": lambda n: layer(num_ranks=n),
    "num_transformer_submodules": lambda n: layer(num_transformer_submodules=n),
    "num_virtual_tokens of a config": lambda n: CONFIG(num_virtual_tokens=n),
    "token_dim of a config": lambda n: CONFIG(num_virtual_tokens=4, token_dim=n),
    "num_layers of a config": lambda n: CONFIG(num_virtual_tokens=4, num_layers=n),
    "num_tasks of a config": lambda n: MULTITASK(num_virtual_tokens=4, num_tasks=n),
    "num_ranks of a config": lambda n: MULTITASK(num_virtual_tokens=4, num_ranks=n),
    "batch_size": lambda n: keras_mpt.TaskMix(DATA, batch_size=n),
    "steps": lambda n: keras_mpt.TaskMix(DATA, steps=n),
    "batch_size of a monitor": lambda n: keras_mpt.analysis.ForgettingMonitor(
        {"a": ([1], [1])}, batch_size=n
    ),
    "shots": lambda n: keras_mpt.few_shot(list("abcdefgh"), [0] * 4 + [1] * 4, shots=n),
    "max_length of a span": lambda n: keras_mpt.models.best_spans(np.zeros((1, 2, 5)), n),
    "num_classes": lambda n: model(num_classes=n),
    "num_classes of a task": lambda n: model(num_classes=[2, n]),
    "num_classes by name": lambda n: model(num_classes={"task_0": 2, "task_1": n}),
    "num_classes of heads": lambda n: keras_mpt.models.TaskHeads([n]),
    "num_tasks counted": lambda n: keras_mpt.multitask_parameter_count(4, 4, num_tasks=n),
    "token_dim counted": lambda n: keras_mpt.full_prompt_parameter_count(4, n, num_tasks=4),
    "max_length": lambda n: language_model().generate(TEXT, n, None),
    "probe_epochs": lambda n: keras_mpt.adapt(
        model(num_classes=2), "new", num_classes=2, probe_epochs=n
    ),
}


@pytest.mark.parametrize("what", SIZES)
def test_sizes(what):
    SIZES[what](np.int64(4))
    for wrong in (True, np.True_, 4.0, "4", 0, -1):
        with pytest.raises(ValueError, match="should be (a positive integer|at least 1)"):
            SIZES[what](wrong)


def test_sizes_are_kept_as_python_s():
    """JSON takes no others."""
    config = MULTITASK(
        num_virtual_tokens=np.int64(4), num_tasks=np.int32(2), num_ranks=np.int8(1),
        num_transformer_submodules=np.int64(1), seed=np.int64(3), train_shared=np.True_,
    )  # fmt: skip
    assert MULTITASK(**json.loads(json.dumps(config.to_dict()))) == config
    of_layer = layer(num_tasks=np.int64(2)).get_config()
    assert json.loads(json.dumps(of_layer["num_tasks"])) == 2


FLAGS = {
    "train_shared": lambda flag: layer(train_shared=flag),
    "train_shared of a config": lambda flag: MULTITASK(num_virtual_tokens=4, train_shared=flag),
    "inference_mode": lambda flag: CONFIG(num_virtual_tokens=4, inference_mode=flag),
    "shuffle": lambda flag: keras_mpt.TaskMix(DATA, shuffle=flag),
    "use_bias": lambda flag: keras_mpt.models.TaskHeads([2], use_bias=flag),
    "each_epoch": lambda flag: keras_mpt.analysis.ForgettingMonitor(
        {"a": ([1], [1])}, each_epoch=flag
    ),
    "strip_prompt": lambda flag: language_model().generate(TEXT, None, None, flag),
    "use_cache": lambda flag: language_model().score(TEXT, [[3]], use_cache=flag),
    "return_prompt_positions": lambda flag: keras_mpt.models.PromptTunedBackbone(
        tiny.backbone("plain"), CONFIG(num_virtual_tokens=4), flag
    ),
}


@pytest.mark.parametrize("what", FLAGS)
def test_flags(what):
    FLAGS[what](np.False_)
    # PEFT's files may have `None` for this one.
    for wrong in ("no", 1, *([] if what == "inference_mode" else [None])):
        with pytest.raises(ValueError, match=f"`{what.split()[0]}` should be True or False"):
            FLAGS[what](wrong)


def test_a_flag_that_is_none_does_not_overwrite(tmp_path):
    saved = model(num_classes=2)
    saved.save_adapter(tmp_path / "a")
    before = (tmp_path / "a" / "adapter_model.safetensors").read_bytes()
    saved.prompt.prompt_embeddings.assign_add(keras.ops.ones((2, tiny.WIDTH)))
    with pytest.raises(ValueError, match="`overwrite` should be True or False. Received: ov"):
        saved.save_adapter(tmp_path / "a", overwrite="no")
    assert (tmp_path / "a" / "adapter_model.safetensors").read_bytes() == before


def test_numbers():
    assert checks.check_number("x", np.float32(0.5), least=0.0) == 0.5
    for wrong in (True, np.True_, "1", None, float("nan"), float("inf"), -1):
        with pytest.raises(ValueError, match="`x` should be a number at least 0. Received: x="):
            checks.check_number("x", wrong, least=0.0)
    with pytest.raises(ValueError, match="`x` should be a number. Received: x='a'"):
        checks.check_number("x", "a")
    with pytest.raises(ValueError, match="`x` should be a number above 0. Received: x=0"):
        checks.check_number("x", 0, above=0.0)


def test_a_choice_is_told_by_type_too():
    for right in (True, np.True_, "auto", np.str_("auto")):
        checks.check_choice("x", right, ("auto", True))
    with pytest.raises(ValueError, match="`x` should be 'auto' or True. Received: x=1"):
        checks.check_choice("x", 1, ("auto", True))


def test_tasks_by_name_or_id():
    assert checks.task_id("task", "b", ["a", "b"]) == checks.task_id(
        "task", np.int64(1), ["a", "b"]
    )
    for wrong in (True, "c", 2, -1, 1.0, None):
        with pytest.raises(ValueError, match=r"`task` should be one of the tasks \['a', 'b'\], or"):
            checks.task_id("task", wrong, ["a", "b"])
