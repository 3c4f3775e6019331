"""Fields that no adapter has: one clear `ValueError`, before anything is made of them."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import keras_mpt
from keras_mpt.files.adapter_files import CHECKSUM
from tests import tiny
from tests.marks import only_torch
from tests.models import classifiers

pytestmark = only_torch

CONFIG, OWN, WEIGHTS = "adapter_config.json", "keras_mpt_config.json", "adapter_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model, and its adapter's files without what would tell any change."""
    model, directory = classifiers.make(), tmp_path_factory.mktemp("saved")
    model.save_adapter(directory)
    state = load_file(directory / WEIGHTS)
    own = json.loads((directory / OWN).read_text())
    del own[CHECKSUM]
    return model, state, {CONFIG: json.loads((directory / CONFIG).read_text()), OWN: own}


def write(directory, saved, file=None, **changes):
    """The adapter with other values in one of its configs."""
    _, state, configs = saved
    save_file(state, directory / WEIGHTS)
    for name, values in configs.items():
        text = json.dumps({**values, **(changes if name == file else {})})
        (directory / name).write_text(text)


def refused(model, directory):
    before = [np.array(v) for v in model.get_weights()]
    words = []
    for load in (lambda d: keras_mpt.load_adapter(model.backbone, d), model.load_adapter):
        with pytest.raises(ValueError, match="Received: ") as raised:
            load(directory)
        words.append(str(raised.value))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert max(map(len, words)) < 1000
    return words


HUGE = 10**9
WRONG = [
    *((CONFIG, name, value) for name in ("revision", "peft_version", "prompt_tuning_init_text",
      "base_model_name_or_path", "tokenizer_name_or_path", "prompt_tuning_init_state_dict_path")
      for value in ({}, 3, ["x"], True)),
    *((CONFIG, name, value) for name in ("num_virtual_tokens", "num_tasks", "num_ranks")
      for value in (HUGE, 10**12, 10**4000, 0, -1, 2.0, True, "3", None, [3], {})),
    *((CONFIG, "token_dim", value) for value in (HUGE, 0, "16", [])),
    *((CONFIG, name, value) for name in ("num_layers", "num_attention_heads")
      for value in (0, "2", 10**12)),
    *((CONFIG, name, value) for name in ("auto_mapping", "tokenizer_kwargs")
      for value in ("x", 3, ["x"])),
    *((CONFIG, "modules_to_save", value) for value in ("x", 3, [3], {"x": 1})),
    *((CONFIG, "prompt_tuning_init_task", value) for value in ({}, 0.5, [None], [[1]])),
    *((CONFIG, name, value) for name in ("task_type", "peft_type", "prompt_tuning_init")
      for value in ({}, 3, ["x"], "x")),
    *((CONFIG, "num_transformer_submodules", value) for value in (2, 3, HUGE, "1", True)),
    (CONFIG, "inference_mode", "yes"),
    *((OWN, "task_names", value) for value in (3, "ab", ["a"], ["a", 3], {"a": 1}, [["a"], "b"])),
    *((OWN, "prompt_position", value) for value in (3, "after", [], {})),
    *((OWN, "seed", value) for value in (-1, 0.5, "x", [], True)),
    *((OWN, "train_shared", value) for value in (3, "x", None)),
    *((OWN, "task_init", value) for value in (3, "zeros", None, [])),
    *((OWN, "num_classes", value) for value in (HUGE, [HUGE, 3], [10**12, 3], 5.0, "x", True, None,
      [6, -1], [2, "x"], {}, [], [5], [[2], 3])),
    *((OWN, "pooling", value) for value in (3, "max", [], {})),
    *((OWN, "head_config", value) for value in (3, "x", ["x"], {"hidden_dim": HUGE},
      {"activation": {"module": "os", "class_name": "system"}})),
    *((OWN, "backbone", value) for value in (3, "x", [], {}, {"class_name": {}},
      {"class_name": "Functional", "num_parameters": "x", "values": []},
      {"class_name": "Functional", "num_parameters": 1, "values": [None]})),
]  # fmt: skip


@pytest.mark.parametrize(("file", "field", "value"), WRONG)
def test_a_field_is_named(saved, file, field, value, tmp_path):
    write(tmp_path, saved, file, **{field: value})
    sized = {"num_tasks": "`(prefix_task|task_names)", "num_ranks": "`prefix_task"}
    sized |= dict.fromkeys(
        ("num_virtual_tokens", "token_dim", "num_transformer_submodules"), "`prompt_embeddings`"
    )
    for words in refused(saved[0], tmp_path):
        assert re.search(f"`{field}`|{sized.get(field, '`base')}", words), words


def test_right_values_load(saved, tmp_path):
    write(tmp_path, saved)
    keras_mpt.load_adapter(saved[0].backbone, tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "recursion"),
        ('{"auto_mapping": ' + '{"a":' * 60 + "1" + "}" * 61, "nested more than 50 levels deep"),
        ('{"num_tasks": ' + "1" * 5000 + "}", "4300 digits"),
    ],
    ids=["brackets", "levels", "digits"],
)
@pytest.mark.parametrize("file", [CONFIG, OWN])
def test_json_that_no_config_is(saved, file, text, reason, tmp_path):
    write(tmp_path, saved)
    (tmp_path / file).write_text(text)
    for words in refused(saved[0], tmp_path):
        assert words.startswith(f"`{file}` should be JSON. Received: ") and reason in words


def test_values_that_python_does_not_write_out():
    for kwargs in (
        {"num_virtual_tokens": 10**5000},
        {"num_virtual_tokens": 3, "seed": -(10**5000)},
    ):
        with pytest.raises(ValueError, match="Received: .*=a int too long to write"):
            keras_mpt.PromptTuningConfig(**kwargs)


@pytest.mark.parametrize("name", ["prompt_embeddings", "base_model.classifier.weight"])
def test_shapes_of_nothing(saved, name, tmp_path):
    """A shape may say anything where one of its sizes is 0."""
    model, state, configs = saved
    write(tmp_path, saved)
    save_file({**state, name: np.zeros((HUGE, 0), "float32")}, tmp_path / WEIGHTS)
    changes = {"num_virtual_tokens": HUGE, "token_dim": None} if name[0] == "p" else {}
    (tmp_path / CONFIG).write_text(json.dumps({**configs[CONFIG], **changes}))
    for words in refused(model, tmp_path):
        assert words.startswith(f"`{name}` in `{tmp_path}` should have numbers in it. Received: ")


def test_a_view_that_would_fill_the_memory(saved, tmp_path):
    torch = pytest.importorskip("torch")
    view = torch.zeros(1).expand(10**6, 10**6)
    torch.save({"prompt_embeddings": view}, tmp_path / "a.bin")
    with pytest.raises(ValueError, match="a tensor larger than the file under 'prompt_embeddings'"):
        keras_mpt.read_state_dict(tmp_path / "a.bin")


@pytest.mark.parametrize(
    "head_config", [{"depth": 3}, {"dropout": "much"}, {"dropout": 5.0}, {"backbone": None}, ["x"]]
)
def test_arguments_that_a_head_does_not_have(head_config):
    message = "`head_config` should be a dict of arguments that keras-hub.s BertTextClassifier"
    with pytest.raises(ValueError, match=message):
        keras_mpt.models.PromptTunedTextClassifier(
            tiny.backbone("bert"), classifiers.config(), [2, 3], head_config=head_config
        )
