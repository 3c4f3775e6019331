"""Adapter directories: what is in them, what is refused, and that nothing is lost."""

import json
import os
import shutil

import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.marks import only_eager


def config(**kwargs):
    """A multitask config of three tasks."""
    defaults = {"task_type": "SEQ_CLS", "num_virtual_tokens": 3, "num_tasks": 3}
    return keras_mpt.MultitaskPromptTuningConfig(**defaults | kwargs)


def classifier(backbone, num_classes, **kwargs):
    """A classifier whose weights are all random, the factors too."""
    model = keras_mpt.prompt_tune(backbone, config(**kwargs), num_classes=num_classes)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("num_classes", [4, [2, 4, 3]])
def test_round_trip_gives_the_same_logits_and_files(tmp_path, kind, num_classes):
    backbone = tiny.backbone(kind)
    model = classifier(backbone, num_classes)
    model.save_adapter(tmp_path / "one")
    loaded = keras_mpt.load_adapter(backbone, tmp_path / "one")
    x = {**tiny.inputs(backbone), "task_ids": [0, 1, 2, 1]}
    np.testing.assert_array_equal(*(ops.convert_to_numpy(m(x)) for m in (model, loaded)))
    loaded.save_adapter(tmp_path / "two")
    for file in ("adapter_model.safetensors", "adapter_config.json", "keras_mpt_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_directory_is_a_few_kilobytes_more_than_its_parameters(tmp_path):
    model = classifier(tiny.backbone(), [2, 4, 3])
    model.save_adapter(tmp_path / "adapter")
    sizes = {f.name: f.stat().st_size for f in (tmp_path / "adapter").iterdir()}
    assert 0 < sizes.pop("README.md") < 4096  # A page for people.
    assert 0 < sum(sizes.values()) - 4 * model.parameter_count() < 4096


def test_an_adapter_of_another_backbone_is_refused(tmp_path):
    """One of the same class and size: its shapes would all fit."""
    classifier(tiny.backbone(), 4).save_adapter(tmp_path)
    other = tiny.with_large_weights(tiny.backbone(), seed=5)
    model = classifier(other, 4)
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    for load in (model.load_adapter, lambda path: keras_mpt.load_adapter(other, path)):
        with pytest.raises(ValueError, match="trained on a BertBackbone with other weights"):
            load(tmp_path)
    for old, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(variable))
    # As the error says: an adapter that does not tell goes on any backbone.
    file = tmp_path / "keras_mpt_config.json"
    own = json.loads(file.read_text())
    del own["backbone"]
    file.write_text(json.dumps(own))
    model.load_adapter(tmp_path)


def test_what_is_not_finite_replaces_nothing(tmp_path):
    model = classifier(tiny.backbone(), 4)
    model.save_adapter(tmp_path)
    written = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    broken = ops.convert_to_numpy(model.prompt.prompt_embeddings).copy()
    broken[0, :2] = np.nan
    model.prompt.prompt_embeddings.assign(broken)
    with pytest.raises(ValueError) as raised:
        model.save_adapter(tmp_path, overwrite=True)
    assert str(raised.value) == (
        "`prompt_embeddings` should be finite to be saved, so nothing was written. Received: "
        "prompt_embeddings with 2 values that are not"
    )
    assert written == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_an_adapter_is_not_overwritten_unless_asked(tmp_path):
    model = classifier(tiny.backbone(), 4)
    model.save_adapter(tmp_path)
    before = (tmp_path / "adapter_model.safetensors").read_bytes()
    model.prompt.prompt_embeddings.assign(np.zeros((3, tiny.WIDTH)))
    with pytest.raises(ValueError, match="`directory` should hold no adapter yet"):
        model.save_adapter(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    model.save_adapter(tmp_path, overwrite=True)
    assert (tmp_path / "adapter_model.safetensors").read_bytes() != before
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failed_save_leaves_the_old_adapter(tmp_path, monkeypatch):
    model = classifier(tiny.backbone(), 4)
    target = tmp_path / "adapter"
    model.save_adapter(target)
    before = {f.name: f.read_bytes() for f in target.iterdir()}
    model.prompt.prompt_embeddings.assign(np.zeros((3, tiny.WIDTH)))

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    for directory in (target, tmp_path / "new"):
        with pytest.raises(OSError, match="no space left"):
            model.save_adapter(directory, overwrite=True)
    assert {f.name: f.read_bytes() for f in target.iterdir()} == before
    assert [f.name for f in tmp_path.iterdir()] == ["adapter"]


REFUSED = {
    "other number of tasks": (
        {"num_tasks": 2},
        4,
        r"`num_tasks` of the adapter should be the model's, 3; `keras_mpt.load_adapter\(backbone, "
        r"directory\)` builds a model that fits it. Received: num_tasks=2 in",
    ),
    "other rank": ({"num_ranks": 2}, 4, "`num_ranks` of the adapter should be the model's, 1; "),
    "other length": (
        {"num_virtual_tokens": 4},
        4,
        "`num_virtual_tokens` of the adapter should be the model's, 3; ",
    ),
    "other classes": ({}, 5, "`num_classes` of the adapter should be the model's, 4; "),
    "other position": (
        {"prompt_position": "before"},
        4,
        "`prompt_position` of the adapter should be the model's, 'after_start'",
    ),
    "other names": (
        {"task_names": ["x", "y", "z"]},
        4,
        r"`task_names` of the adapter should be the model's, \['a', 'b', 'c'\]",
    ),
}


@only_eager
@pytest.mark.parametrize("what", REFUSED)
def test_an_adapter_that_does_not_fit_changes_nothing(tmp_path, what):
    changes, num_classes, message = REFUSED[what]
    backbone = tiny.backbone()
    names = {} if changes.get("num_tasks") else {"task_names": ["a", "b", "c"]}
    classifier(backbone, num_classes, **{**names, **changes}).save_adapter(tmp_path)
    model = classifier(backbone, 4, task_names=["a", "b", "c"])
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    with pytest.raises(ValueError, match=message):
        model.load_adapter(tmp_path)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


def test_weights_of_another_shape_than_their_config_says_are_refused(tmp_path):
    backbone = tiny.backbone()
    model = classifier(backbone, 4)
    model.save_adapter(tmp_path)
    classifier(backbone, 4, num_tasks=2).save_adapter(tmp_path / "two")
    shutil.copy(tmp_path / "two" / "adapter_model.safetensors", tmp_path)
    message = (
        r"`prefix_task_cols` in `.*` should have shape \(3, 3, 1\). Received: prefix_task_cols of "
        r"shape \(2, 3, 1\)"
    )
    with pytest.raises(ValueError, match=message):
        model.load_adapter(tmp_path)


def test_an_adapter_with_another_number_of_stacks_is_refused(tmp_path):
    backbone = tiny.backbone("bart")
    config = {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 3, "num_tasks": 2}
    one, two = (
        keras_mpt.prompt_tune(
            backbone,
            keras_mpt.MultitaskPromptTuningConfig(num_transformer_submodules=m, **config),
        )
        for m in (1, 2)
    )
    two.save_adapter(tmp_path)
    message = "`num_transformer_submodules` of the adapter should be the model's, 1; .*Received: "
    with pytest.raises(ValueError, match=message + "num_transformer_submodules=2 in"):
        one.load_adapter(tmp_path)


def test_an_adapter_of_another_width_or_method_is_refused(tmp_path):
    classifier(tiny.backbone(), 4).save_adapter(tmp_path)
    with pytest.raises(ValueError, match="`token_dim` should be the width of the backbone's"):
        keras_mpt.load_adapter(tiny.backbone("albert"), tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "peft_type": "LORA"}))
    with pytest.raises(ValueError, match="`peft_type` should be one of 'PROMPT_TUNING'"):
        keras_mpt.load_adapter(tiny.backbone(), tmp_path)


def test_half_an_adapter_is_refused(tmp_path):
    backbone = tiny.backbone()
    classifier(backbone, 4).save_adapter(tmp_path / "whole")
    for missing in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copytree(tmp_path / "whole", tmp_path / missing)
        (tmp_path / missing / missing).unlink()
        with pytest.raises(ValueError, match=missing):
            keras_mpt.load_adapter(backbone, tmp_path / missing)
    weights = tmp_path / "whole" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="truncated or of another kind"):
        keras_mpt.load_adapter(backbone, tmp_path / "whole")


OTHER_HEADS = {
    "classes of other tasks": (
        {"num_classes": [3, 2]},
        r"`num_classes` of the adapter should be the model's, \[3, 2\]; .* Received: "
        r"num_classes=\[2, 3\] in",
    ),
    "a shared head": ({"num_classes": 5}, "`num_classes` of the adapter should be the model's, 5;"),
    "pooling": (
        {"num_classes": [2, 3], "pooling": "mean"},
        "`pooling` of the adapter should be the model's, 'mean'; .* Received: pooling='base' in",
    ),
    "task type": (
        {"num_classes": [2, 3], "task_type": "TOKEN_CLS"},
        "`task_type` of the adapter should be the model's, 'TOKEN_CLS'; .*task_type='SEQ_CLS' in",
    ),
}


@pytest.mark.parametrize("what", OTHER_HEADS)
def test_weights_of_the_same_shapes_but_another_head_are_refused(tmp_path, what):
    backbone = tiny.backbone()

    def two_tasks(task_type="SEQ_CLS", **kwargs):
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type=task_type, num_virtual_tokens=3, num_tasks=2
        )
        return keras_mpt.prompt_tune(backbone, config, **kwargs)

    changes, message = OTHER_HEADS[what]
    two_tasks(num_classes=[2, 3]).save_adapter(tmp_path)
    model = two_tasks(**changes)
    before = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    with pytest.raises(ValueError, match=message):
        model.load_adapter(tmp_path)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


def test_what_saving_would_destroy_or_leave_behind(tmp_path):
    model = classifier(tiny.backbone(), 4)
    own = tmp_path / "own" / "keras_mpt_config.json"
    own.parent.mkdir()
    own.write_text("{}")
    with pytest.raises(ValueError, match=r"with \['keras_mpt_config.json'\]"):
        model.save_adapter(own.parent)
    assert own.read_text() == "{}"
    model.save_adapter(tmp_path / "adapter")
    before = (tmp_path / "adapter" / "adapter_config.json").read_bytes()
    with pytest.raises(ValueError, match="`save_directory` should hold no adapter's weights: .*"):
        keras_mpt.PromptTuningConfig(num_virtual_tokens=3).save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_config.json").read_bytes() == before
    # An older .bin would be another adapter's weights under the new config.
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(b"old")
    model.save_adapter(tmp_path / "adapter", overwrite=True)
    assert not (tmp_path / "adapter" / "adapter_model.bin").exists()
