"""Whole models as `.keras`: in fresh processes, on this backend and on another."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny

BACKENDS = ("tensorflow", "jax", "torch")
# A fresh process takes long to start, so in the three runs each backend reads its own files and
# those of one other. Older files, which one backend wrote, are read on all of them.
OWN = keras.backend.backend()
READERS = (OWN, BACKENDS[BACKENDS.index(OWN) - 1])


def classifier():
    """A trained classifier with a head per task, a preprocessor and a text start before it."""
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=3, num_tasks=2, num_ranks=2,
        task_names=["tone", "topic"], prompt_tuning_init="TEXT", prompt_tuning_init_text="a b",
    )  # fmt: skip
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c"]
    tokenizer = keras_hub.tokenizers.BertTokenizer(words, lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=6)
    backbone = tiny.backbone("bert")
    model = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3], preprocessor=preprocessor)
    x = {**tiny.inputs(backbone), "task_ids": np.array([0, 1, 1, 0])}
    model.fit(x, np.array([1, 2, 0, 0]), epochs=2, verbose=0)
    return model, x


def encoder_decoder():
    """A T5 with prompts on both sides."""
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=None, num_virtual_tokens=3, num_tasks=2, num_transformer_submodules=2,
        task_init="normal",
    )  # fmt: skip
    backbone = tiny.backbone("t5")
    model = keras_mpt.prompt_tune(backbone, config)
    return model, {**tiny.inputs(backbone), "task_ids": np.array([0, 1, 1, 0])}


def single_prompt():
    """A causal language model with one ordinary prompt."""
    config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    backbone = tiny.backbone("gpt2")
    model = keras_mpt.prompt_tune(backbone, config)
    x = tiny.inputs(backbone)
    model.fit(x, x["token_ids"], verbose=0)
    return model, x


MODELS = {f.__name__: f for f in (classifier, encoder_decoder, single_prompt)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The three models, saved, with the inputs that they are compared on."""
    folder = tmp_path_factory.mktemp("saved")
    models = {}
    for name, make in MODELS.items():
        keras.utils.set_random_seed(0)
        model, x = make()
        model.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}-inputs.npz", **x)
        models[name] = (model, x)
    return folder, models


@pytest.mark.parametrize("backend", READERS)
def test_fresh_process_has_every_variable_and_the_same_outputs(saved, backend):
    folder, models = saved
    # The other backend reads all kinds; this one, which the next run's files come from too, one.
    models = {"classifier": models["classifier"]} if backend == OWN else models
    command = [sys.executable, "-W", "ignore", "-m", "tests.saving.load_elsewhere"]
    done = subprocess.run(
        [*command, str(folder), *models],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, (model, x) in models.items():
        with np.load(folder / f"{name}-{backend}.npz") as found:
            trained = [any(v is t for t in model.trainable_variables) for v in model.weights]
            assert found["trained"].tolist() == trained
            assert f"variable:{len(trained)}" not in found
            for i, variable in enumerate(model.weights):
                np.testing.assert_array_equal(
                    found[f"variable:{i}"], ops.convert_to_numpy(variable)
                )
            for i, output in enumerate(keras.tree.flatten(model.predict(x, verbose=0))):
                real = output > -1e8  # Classes that a task does not have are -1e9.
                np.testing.assert_allclose(
                    found[f"output:{i}"][real], output[real], atol=1e-5, rtol=0
                )


@pytest.mark.parametrize("name", MODELS)
def test_each_weight_is_written_once(saved, name):
    folder, models = saved
    model = models[name][0]
    sizes = []
    with zipfile.ZipFile(folder / f"{name}.keras") as archive:
        archive.extract("model.weights.h5", folder / name)
    with h5py.File(folder / name / "model.weights.h5") as file:
        file.visititems(
            lambda path, item: (
                sizes.append(item.size)
                if isinstance(item, h5py.Dataset)
                and not path.startswith("optimizer")
                and "seed_generator" not in path  # The state of a random stream, not a weight.
                else None
            )
        )
    assert sum(sizes) == sum(int(np.prod(v.shape)) for v in model.weights)


def test_loaded_model_trains_on_with_its_optimizer_and_takes_text(saved):
    folder, models = saved
    model, x = models["classifier"]
    loaded = keras.saving.load_model(folder / "classifier.keras")
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 2
    for ours, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs))
    text = {"text": ["a b c", "c"], "task_ids": ["tone", "topic"]}
    np.testing.assert_allclose(
        loaded.predict(text, verbose=0), model.predict(text, verbose=0), atol=1e-6
    )
    assert loaded.config == model.config
    loaded.fit(x, np.array([1, 2, 0, 0]), verbose=0)
    assert int(loaded.optimizer.iterations) == 3


def test_registered_names_are_stable(saved):
    _, models = saved
    layer = keras_mpt.MultitaskPromptEmbedding(3, 4, 2)
    objects = [*(m for m, _ in models.values()), layer, keras_mpt.models.TaskHeads([2])]
    names = [keras.saving.get_registered_name(type(x)) for x in objects]
    assert names == [
        "keras_mpt>PromptTunedTextClassifier",
        "keras_mpt>PromptTunedBackbone",
        "keras_mpt>PromptTunedCausalLM",
        "keras_mpt>MultitaskPromptEmbedding",
        "keras_mpt>TaskHeads",
    ]


def test_a_backbone_that_is_no_keras_hub_class_stays_frozen(tmp_path):
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=2)
    model = keras_mpt.models.PromptTunedTextClassifier(tiny.backbone("plain"), config, [2, 3])
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert [v.path for v in loaded.trainable_variables] == [
        v.path for v in model.trainable_variables
    ]
    assert len(loaded.trainable_variables) == 5  # P, its factors, and the heads.


def trained_names(model):
    """The names of what a model trains: paths differ from model to model."""
    return [v.name for v in model.trainable_variables]


def untrained():
    """A classifier that nothing was compiled for."""
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=3, num_tasks=2
    )
    return keras_mpt.prompt_tune(tiny.backbone("bert"), config, num_classes=[2, 3])


def test_a_frozen_model_comes_back_frozen_and_thaws_without_its_backbone(tmp_path):
    model = untrained()
    trained = trained_names(model)
    assert len(trained) == 5
    model.trainable = False
    assert trained_names(model) == []
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert trained_names(loaded) == []
    for thawed in (model, loaded):
        thawed.trainable = True
        assert trained_names(thawed) == trained
        assert not any(v.trainable for v in thawed.backbone.variables)


def test_what_was_frozen_by_hand_comes_back_frozen(tmp_path):
    model = untrained()
    model.prompt.trainable = False
    assert trained_names(model) == ["kernel", "bias"]
    model.save(tmp_path / "m.keras")
    assert trained_names(keras.saving.load_model(tmp_path / "m.keras")) == ["kernel", "bias"]
