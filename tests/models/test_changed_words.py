"""Words that are changed in the config of a model that lives: answers, accuracy, saved files."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.decoding.test_label_words import model_with
from tests.fitting.test_word_labels import TASKS, TEXTS
from tests.marks import only_eager

WORDS = {"a": ["b", "g", "a"], "c": ["e", "d"]}
OTHERS = {"a": ["h", "g", "f"], "c": ["e", "d"]}
DATA = {"prompts": TEXTS, "task_ids": TASKS}


def right(model):
    """The labels that make all of `evaluate` right: those of the model's own answers."""
    words = model.config.label_words
    found = model.predict_labels({"prompts": TEXTS}, task_ids=TASKS)
    return np.array([words[t].index(w) for w, t in zip(found, TASKS, strict=True)])


def in_place(model):
    model.config.label_words["a"][:] = OTHERS["a"]


WAYS = {
    "assigned": lambda model: setattr(model.config, "label_words", OTHERS),
    "in place": in_place,
    "another config": lambda model: model.set_config(
        dataclasses.replace(model.config, label_words=OTHERS)
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_live_model_has_the_words_of_its_config(way):
    model, expected = model_with(WORDS), model_with(OTHERS)
    data = {"prompts": TEXTS, "task_ids": TASKS}
    model.evaluate(data, right(model), verbose=0)  # Compiled for the words that it has now.
    WAYS[way](model)
    labels = right(expected)
    np.testing.assert_array_equal(right(model), labels)
    np.testing.assert_allclose(model.score(data), expected.score(data), rtol=1e-6)
    assert model.evaluate(data, labels, verbose=0, return_dict=True)["accuracy"] == 1.0


@only_eager
def test_a_saved_model_has_them_too(tmp_path):
    model = model_with(WORDS)
    WAYS["in place"](model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.config.label_words == OTHERS
    np.testing.assert_array_equal(right(loaded), right(model))


@only_eager
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"zz": ["a", "b"]}, "should be of the tasks that there are, .* Received: label_words of"),
        ({"a": ["b", "b"]}, "should be another string for each class"),
        ({"a": ["b", ""]}, "should be a list of strings, none of them empty"),
        ({"a": [" b", " d"]}, "should differ in their first token"),
    ],
)
def test_wrong_words_are_refused_before_a_file_is_written(tmp_path, words, message):
    model = model_with(WORDS)
    before = [keras.ops.convert_to_numpy(v) for v in model.weights]
    model.config.label_words = words
    with pytest.raises(ValueError, match="`label_words`.* " + message):
        model.predict_labels(TEXTS, task_ids=TASKS)
    with pytest.raises(ValueError, match="`label_words`.* " + message):
        model.fit(DATA, [0] * len(TASKS), verbose=0)
    for old, variable in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)
    if "first token" not in message:  # Of which a file would know nothing before it is loaded.
        with pytest.raises(ValueError, match="`label_words`.* " + message):
            model.save(tmp_path / "model.keras")
        assert not (tmp_path / "model.keras").exists()


@only_eager
def test_names_of_classes_likewise(tmp_path):
    config = keras_mpt.PromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=3, label_names=["no", "ok"]
    )
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=2)
    model.config.label_names = ["no", "no"]
    with pytest.raises(ValueError, match="`label_names` should be another string for each class"):
        model.save(tmp_path / "model.keras")
