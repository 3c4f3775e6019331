"""The backbone is anybody's: what its owner does to it, a model on it refuses or follows."""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.decoding import language_models
from tests.marks import only_torch, slow_on_jax
from tests.models.classifiers import config, make

LABELS = [0, 1, 1, 2]


def data(model):
    return {**tiny.inputs(model.backbone), "task_ids": ["a", "b", "a", "b"]}


def thaw(model):
    model.backbone.trainable = True


def thaw_one_layer(model):
    model.backbone.trainable = True
    for layer in model.backbone.layers[:-1]:
        layer.trainable = False
    dense = [layer for layer in model.backbone.layers if layer.weights][-1]
    dense.trainable = True


def give_lora(model):
    attention = next(x for x in model.backbone.layers if "attention" in x.name)
    attention.query_dense.enable_lora(2)


CHANGES = {thaw: "should be frozen", thaw_one_layer: "should be frozen", give_lora: "no LoRA"}


@only_torch
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_backbone_is_neither_trained_nor_left_out_of_files(change, tmp_path):
    model = make("heads")
    other = keras_mpt.models.PromptTunedTextClassifier(model.backbone, config(), [2, 3])
    expected = model.predict(data(model), verbose=0)
    change(model)
    before = [ops.convert_to_numpy(v) for v in model.variables]
    refused = {
        "fit": lambda m: m.fit(data(m), LABELS, verbose=0),
        "train_on_batch": lambda m: m.train_on_batch(data(m), np.array(LABELS)),
        "save_adapter": lambda m: m.save_adapter(tmp_path / "adapter"),
        "save": lambda m: m.save(tmp_path / "model.keras"),
    }
    for one in (model, other):
        for name, call in refused.items():
            with pytest.raises(ValueError, match=CHANGES[change]):
                call(one)
            assert not list(tmp_path.iterdir()), name
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    np.testing.assert_array_equal(model.predict(data(model), verbose=0), expected)


@only_torch
def test_a_backbone_with_lora_is_refused_when_a_model_is_built():
    backbone = make("heads").backbone
    next(x for x in backbone.layers if "attention" in x.name).query_dense.enable_lora(2)
    with pytest.raises(ValueError, match="no LoRA"):
        keras_mpt.models.PromptTunedTextClassifier(backbone, config(), [2, 3])


@only_torch
def test_frozen_again_it_trains():
    model = make("heads")
    thaw(model)
    model.backbone.trainable = False
    model.fit(data(model), LABELS, verbose=0)


@only_torch
def test_a_student_with_a_thawed_backbone_is_not_trained():
    student = make("shared head")
    of_one = keras_mpt.PromptTuningConfig(num_virtual_tokens=3, task_type="SEQ_CLS")
    build = keras_mpt.models.PromptTunedTextClassifier
    teachers = {name: build(student.backbone, of_one, 3) for name in ("a", "b")}
    distillation = keras_mpt.Distillation(student, teachers)
    thaw(student)
    with pytest.raises(ValueError, match="should be frozen"):
        distillation.fit(data(student), LABELS, verbose=0)


@only_torch
def test_a_thawed_layer_of_an_older_file_comes_back_frozen():
    """Files that were written before this was refused say that the backbone is trained."""
    model = make("heads")
    saved = model.get_config()
    saved["layers_trainable"] = [True] * len(saved["layers_trainable"])
    loaded = type(model).from_config(saved)
    paths = [[v.path for v in m.trainable_variables] for m in (model, loaded)]
    assert paths[0] == paths[1]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A model whose backbone somebody quantized after it was compiled, and what was given."""
    model = make("shared head")
    model.fit(data(model), LABELS, verbose=0)
    before = model.predict(data(model), verbose=0)
    model.backbone.quantize("int8")
    return model, before, model.predict(data(model), verbose=0)


def test_what_was_compiled_follows_a_quantized_backbone(quantized):
    model, before, after = quantized
    assert np.abs(after - before).max() > 1e-4
    # The direct call is not compiled.
    direct = ops.convert_to_numpy(model(data(model)))
    np.testing.assert_allclose(after, direct, rtol=1e-4, atol=1e-4)


def test_it_trains_on(quantized):
    model = quantized[0]
    start = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    model.fit(data(model), LABELS, verbose=0)
    for variable, value in zip(model.trainable_variables, start, strict=True):
        assert np.abs(ops.convert_to_numpy(variable) - value).max() > 0


@slow_on_jax
def test_generated_text_and_kept_prompts_follow_a_quantized_backbone():
    model = language_models.make("gpt2")
    x, given = language_models.inputs("gpt2"), {"task_ids": [0, 2]}
    before = model.score(x, [[3], [4]], **given)
    model.backbone.quantize("int8")
    after = model.score(x, [[3], [4]], **given)
    assert np.abs(after - before).max() > 1e-3
    model.kept_prompts.clear()
    model.functions.forget()
    np.testing.assert_array_equal(model.score(x, [[3], [4]], **given), after)


@only_torch
def test_a_quantized_model_is_saved_and_loaded(tmp_path):
    backbone = tiny.backbone("bert", dropout=0.0)
    model = keras_mpt.prompt_tune(backbone, config(task_type="SEQ_CLS"), num_classes=3)
    trained = [v.path for v in model.trainable_variables]
    model.quantize("int8")
    assert [v.path for v in model.trainable_variables] == trained
    assert any(v.dtype == "int8" for v in backbone.variables)
    expected = model.predict(data(model), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert [v.path for v in loaded.trainable_variables] == trained
    found = loaded.predict(data(model), verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def calls_on(backbone):
    """How many calls of all graphs the backbone and its layers keep."""
    layers = [backbone, *backbone._flatten_layers(include_self=False)]
    return sum(len(x._inbound_nodes) + len(x._outbound_nodes) for x in layers)


@pytest.mark.parametrize("kind", ["gpt2", pytest.param("bert", marks=only_torch)])
def test_models_that_are_gone_leave_nothing_on_the_backbone(kind, tmp_path):
    backbone = tiny.backbone(kind)
    task_type, given = {
        "gpt2": ("CAUSAL_LM", {}),
        "bert": ("SEQ_CLS", {"num_classes": [2, 3]}),
    }[kind]
    model = keras_mpt.prompt_tune(backbone, config(task_type=task_type), **given)
    model.save_adapter(tmp_path / "adapter")
    calls, gone = calls_on(backbone), []
    for _ in range(3):
        loaded = keras_mpt.load_adapter(backbone, tmp_path / "adapter")
        gone += [weakref.ref(loaded), weakref.ref(loaded.fold("a"))]
    del loaded
    gc.collect()
    assert calls_on(backbone) == calls
    assert not [ref for ref in gone if ref() is not None]
