"""Words and names of classes: kept through files and as tasks come and go, and what is refused."""

import json
import re

import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.decoding.test_score import causal_preprocessor
from tests.marks import only_torch
from tests.models.classifiers import assert_unchanged, make, state

pytestmark = only_torch

WORDS = {"a": ["b", " c"], "c": [" ab", "d", "a"]}
NAMES = {"a": ["bad", "good"], "b": ["x", "y", "z"]}


def language_model(words=WORDS, preprocessor=True, **kwargs):
    """A causal model of three tasks, of which two have words."""
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=3,
        num_tasks=3,
        task_names=["a", "b", "c"],
        label_words=words,
        **kwargs,
    )
    read = causal_preprocessor() if preprocessor else None
    return keras_mpt.prompt_tune(tiny.backbone("gpt2"), config, preprocessor=read)


def one_prompt(**kwargs):
    return keras_mpt.PromptTuningConfig(num_virtual_tokens=3, **kwargs)


def two_tasks(**kwargs):
    given = {"num_virtual_tokens": 3, "num_tasks": 2, "task_names": ["a", "b"], **kwargs}
    return keras_mpt.MultitaskPromptTuningConfig(**given)


def test_they_are_fields_of_our_own(tmp_path):
    for config in (
        one_prompt(label_words=("b", "a"), label_names=["bad", "good"]),
        two_tasks(label_words={"b": ("x", "y")}, label_names=NAMES),
    ):
        peft_fields, own = config.split_fields()
        assert not {"label_words", "label_names"} & set(peft_fields)
        assert {"label_words", "label_names"} <= set(own)
        assert type(config)(**config.to_dict()) == config
        config.save_pretrained(tmp_path)
        assert "label" not in (tmp_path / "adapter_config.json").read_text()
        assert keras_mpt.PromptTuningConfig.from_pretrained(tmp_path) == config
    assert config.label_words == {"b": ["x", "y"]}
    assert json.loads(json.dumps(config.to_dict()))["label_names"] == NAMES
    # Without any, files are as they were before there were any.
    for config in (one_prompt(), two_tasks(label_words={}, label_names={"a": None})):
        assert config.label_words is None and config.label_names is None
        assert not {"label_words", "label_names"} & set(config.to_dict())


def test_tasks_come_and_go():
    model = language_model()
    model.add_task("d", from_="a", label_words=["c", "d"])
    assert model.config.label_words == {**WORDS, "d": ["c", "d"]}
    assert model.model_inputs.label_words.num_classes.tolist() == [2, 0, 3, 2]
    model.add_task("e", from_="a")
    model.remove_task("a")
    model.rename_task("c", "first")
    assert model.config.label_words == {"first": WORDS["c"], "d": ["c", "d"]}
    assert model.model_inputs.label_words.words == [[], WORDS["c"], ["c", "d"], []]
    assert model.fold("first").config.label_words == WORDS["c"]
    assert model.fold("b").config.label_words is None
    # "shared" draws one task's factors, as of a config of its own.
    model.add_task("f", from_="shared", train_shared=False)
    model.add_task("g", from_="shared")
    assert model.config.label_words == {"first": WORDS["c"], "d": ["c", "d"]}


def test_names_of_a_copied_head_are_copied():
    model = make(label_names=NAMES)
    model.add_task("c", from_="b")
    model.add_task("d", num_classes=4)
    model.add_task("e", from_="b", label_names=["u", "v", "w"])
    model.add_task("f", from_="b", num_classes=2, label_names=["no", "yes"])
    added = {"c": NAMES["b"], "e": ["u", "v", "w"], "f": ["no", "yes"]}
    assert model.config.label_names == {**NAMES, **added}
    assert model.fold("c").config.label_names == NAMES["b"]
    adapted = keras_mpt.adapt(model, ["g", "h"], num_classes=[None, 2], from_="b")
    assert adapted.config.label_names == {"g": NAMES["b"]}
    words = {"g": ["b", " c"]}
    adapted = keras_mpt.adapt(language_model(), ["g", "h"], label_words=words)
    assert adapted.config.label_words == words


def test_files_keep_them(tmp_path):
    model = language_model()
    model.save_adapter(tmp_path / "adapter")
    backbone, read = model.backbone, causal_preprocessor()
    loaded = keras_mpt.load_adapter(backbone, tmp_path / "adapter", preprocessor=read)
    model.save(tmp_path / "m.keras")
    for other in (loaded, keras.saving.load_model(tmp_path / "m.keras", compile=False)):
        assert other.config.label_words == WORDS
        words = other.model_inputs.label_words
        np.testing.assert_array_equal(words.token_ids, model.model_inputs.label_words.token_ids)
    # Trained on tokens from elsewhere, a model keeps the words of which it cannot make any.
    assert keras_mpt.load_adapter(backbone, tmp_path / "adapter").config.label_words == WORDS
    other = language_model({"a": ["b", "a"]})
    other.backbone.set_weights(backbone.get_weights())
    with pytest.raises(ValueError, match="`label_words` of the adapter should be the model's, {'a"):
        other.load_adapter(tmp_path / "adapter")
    language = language_model(None)
    language.backbone.set_weights(backbone.get_weights())
    language.load_adapter(tmp_path / "adapter")


def test_peft_opens_the_directory(tmp_path):
    peft = pytest.importorskip("peft")
    language_model(prompt_position="before").save_adapter(tmp_path)
    config = peft.PeftConfig.from_pretrained(tmp_path)
    assert config.peft_type == "MULTITASK_PROMPT_TUNING" and config.num_tasks == 3


def test_teachers_have_each_its_own(tmp_path):
    backbone = tiny.backbone("plain")
    x = tiny.inputs(backbone)
    data = {"a": (x, np.array([0, 1, 1, 0])), "b": (x, np.array([2, 1, 0, 0]))}
    config = one_prompt(task_type="SEQ_CLS")
    given = {"num_classes": {"a": 2, "b": 3}, "label_names": NAMES, "epochs": 1, "verbose": 0}
    found = keras_mpt.train_teachers(backbone, data, tmp_path, config, **given)
    for name, directory in found.items():
        saved = keras_mpt.PromptTuningConfig.from_pretrained(directory)
        assert saved.label_names == NAMES[name]
    given["label_names"] = {**NAMES, "b": NAMES["b"][::-1]}
    with pytest.raises(
        ValueError, match="task 'b' a teacher with `label_names`=.'x', 'y', 'z'., no"
    ):
        keras_mpt.train_teachers(backbone, data, tmp_path, config, **given)
    other = two_tasks(task_type="SEQ_CLS", label_names=given["label_names"])
    student = keras_mpt.prompt_tune(backbone, other, num_classes=[2, 3])
    with pytest.raises(
        ValueError, match="task 'b' a teacher with `label_names`=.'x', 'y', 'z'., no"
    ):
        keras_mpt.Distillation(student, found)


def list_of(field, received, rest=""):
    return (
        f"`{field}` should be a list of strings, none of them empty. Received: {field}={received}"
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: one_prompt(label_words={"a": ["b", "c"]}),
            list_of("label_words", "{'a': ['b', 'c']}"),
        ),
        (lambda: one_prompt(label_names=["b", ""]), list_of("label_names", "['b', '']")),
        (lambda: one_prompt(label_words="ab"), list_of("label_words", "'ab'")),
        (
            lambda: two_tasks(label_words={"a": ["b", 3]}),
            list_of("label_words", "['b', 3] of task 'a'"),
        ),
        (
            lambda: two_tasks(label_words=[["b", "c"]]),
            "`label_words` should be a dict of task name to list of strings, or None. Received: "
            "label_words=[['b', 'c']]",
        ),
        (
            lambda: two_tasks(label_names={"a": ["b", "c"], "z": ["b", "c"]}),
            "`label_names` should be of the tasks that there are, ['a', 'b']. Received: "
            "label_names of ['z']",
        ),
        (
            lambda: two_tasks(label_words={"a": ["b"]}),
            "`label_words` should be of two classes at least. Received: label_words=['b'] of task "
            "'a'",
        ),
        (
            lambda: two_tasks(label_words={"a": ["b", "c", "b"]}),
            "`label_words` should be another string for each class. Received: "
            "label_words=['b', 'c', 'b'] of task 'a', with ['b'] more than once",
        ),
        (
            lambda: make(label_words={"a": ["b", "c"]}),
            "`label_words` should be left out of the config of a model that does not answer in "
            "words: `label_names` name the classes of a head. Received: label_words={'a': ['b', "
            "'c']}",
        ),
        (
            lambda: language_model(None, label_names={"a": ["b", "c"]}),
            "`label_names` should be left out of the config of a model without classes; a language "
            "model has `label_words`. Received: label_names={'a': ['b', 'c']}",
        ),
        (
            lambda: make(label_names={"b": ["b", "c"]}),
            "`label_names` should be one per class, 3 of them for task 'b'. Received: "
            "label_names=['b', 'c']",
        ),
        (
            lambda: make("shared head", label_names={"b": ["b", "c"]}),
            "`label_names` should be one per class, 3 of them for task 'b'. Received: "
            "label_names=['b', 'c']",
        ),
        (
            lambda: language_model({"c": ["ab", " c", " d"]}),
            "Received: label_words of task 'c' with ' c' and ' d', which both begin with token",
        ),
    ],
)
def test_what_is_refused(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 3, "label_names": ["b", "c"]}, "one per class, 3 of them for task 'c'"),
        ({"num_classes": 2, "label_names": ["b", "b"]}, "another string for each class"),
        ({"num_classes": 2, "label_words": ["b", "c"]}, "`label_words` should be left out of the"),
    ],
)
def test_a_refused_task_changes_nothing(arguments, message):
    model = make(label_names=NAMES)
    before = state(model)
    with pytest.raises(ValueError, match=message):
        model.add_task("c", **arguments)
    assert_unchanged(model, before)


def test_words_are_refused_before_a_task_is_added():
    model = language_model()
    before = model.config
    with pytest.raises(ValueError, match="differ in their first token"):
        model.add_task("d", label_words=[" c", " d"])
    assert model.config is before and model.prompt.num_tasks == 3
