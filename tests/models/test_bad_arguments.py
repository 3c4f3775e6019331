"""Models that cannot be made say so in plain words, when they are made."""

import keras
import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_eager

TextClassifier = keras_mpt.models.PromptTunedTextClassifier


def config(**kwargs):
    """Two tasks, three virtual tokens."""
    return keras_mpt.MultitaskPromptTuningConfig(
        **{"num_virtual_tokens": 3, "num_tasks": 2} | kwargs
    )


@pytest.fixture(scope="module")
def backbone():
    """A BERT; 32 positions, 16 wide."""
    return tiny.backbone("bert")


def assert_refused(words, function, *args, **kwargs):
    """These very words."""
    with pytest.raises(ValueError) as raised:
        function(*args, **kwargs)
    assert str(raised.value) == words


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (
            {"token_dim": 15},
            "`token_dim` should be the width of the backbone's token embedding, 16, or None. "
            "Received: token_dim=15",
        ),
        (
            {"num_virtual_tokens": 32},
            "`num_virtual_tokens` should leave room for tokens in the backbone's 32 positions. "
            "Received: num_virtual_tokens=32",
        ),
        (
            {"num_transformer_submodules": 2},
            "`num_transformer_submodules` should be at most the number of token inputs of the "
            "backbone, 1. Received: num_transformer_submodules=2",
        ),
        (
            {"task_type": "SEQ_CLS"},
            "`num_classes` should be given for task_type='SEQ_CLS': an integer, or one per task. "
            "Received: none",
        ),
        (
            {"task_type": "TOKEN_CLS"},
            "`num_classes` should be given for task_type='TOKEN_CLS': an integer, or one per task. "
            "Received: none",
        ),
        (
            {"task_type": "CAUSAL_LM"},
            "`backbone` should be one that keras-hub has a CausalLM for. Received: a BertBackbone",
        ),
        (
            {"task_type": "SEQ_2_SEQ_LM"},
            "`backbone` should be one that keras-hub has a Seq2SeqLM for. Received: a BertBackbone",
        ),
    ],
)
def test_a_config_that_does_not_fit_the_backbone(backbone, kwargs, words):
    assert_refused(words, keras_mpt.prompt_tune, backbone, config(**kwargs))


@only_eager
def test_one_position_for_tokens_is_enough(backbone):
    model = keras_mpt.prompt_tune(backbone, config(num_virtual_tokens=31, token_dim=16))
    x = {**tiny.inputs(backbone, length=1), "task_ids": 0}
    x["padding_mask"] = np.ones_like(x["token_ids"])
    assert model(x)["sequence_output"].shape == (4, 1, 16)


@pytest.mark.parametrize(
    "num_classes", [0, -1, True, 2.0, "3", None, [], [2, 0], [2, 3.5], [2, True]], ids=repr
)
def test_num_classes_that_are_no_counts(backbone, num_classes):
    words = (
        "`num_classes` should be a positive integer, or a list with one per task. Received: "
        f"num_classes={num_classes!r}"
    )
    assert_refused(words, TextClassifier, backbone, config(), num_classes=num_classes)


@pytest.mark.parametrize(
    ("given", "num_tasks", "num_classes"),
    [
        (config(), 2, [2]),
        (config(), 2, [2, 3, 4]),
        (keras_mpt.PromptTuningConfig(num_virtual_tokens=3), None, [2]),
    ],
    ids=["too few", "too many", "no tasks"],
)
@pytest.mark.parametrize("from_classifier", [False, True])
def test_num_classes_for_other_tasks(backbone, given, num_tasks, num_classes, from_classifier):
    words = (
        "`num_classes` should have one entry per task of a MultitaskPromptTuningConfig (num_tasks="
        f"{num_tasks}), or be one integer. Received: num_classes={num_classes}"
    )
    make, base = TextClassifier, backbone
    if from_classifier:
        make = TextClassifier.from_classifier
        base = keras_hub.models.BertTextClassifier(backbone, num_classes=2)
    assert_refused(words, make, base, given, num_classes=num_classes)


@pytest.mark.parametrize(
    ("kind", "pooling", "words"),
    [
        (
            "bert",
            "max",
            "`pooling` should be 'base', 'mean', 'last' or None. Received: pooling='max'",
        ),
        (
            "plain",
            "base",
            "`pooling` should be 'mean' or 'last' for a backbone that keras-hub has no text "
            "classifier for. "
            "Received: pooling='base' with a Functional",
        ),
    ],
)
def test_pooling(kind, pooling, words):
    model = tiny.backbone(kind)
    assert_refused(words, TextClassifier, model, config(), num_classes=2, pooling=pooling)


@pytest.mark.parametrize(
    "base", [keras.layers.Dense(2), "bert_tiny_en_uncased", None], ids=lambda b: type(b).__name__
)
def test_a_base_that_is_no_model(base):
    words = (
        "`base` should be a keras-hub Backbone, TextClassifier, CausalLM, Seq2SeqLM or MaskedLM. "
        f"Received: a {type(base).__name__}"
    )
    assert_refused(words, keras_mpt.prompt_tune, base, config())


def test_a_task_of_another_kind(backbone):
    words = (
        "`base` should be a keras-hub Backbone, TextClassifier, CausalLM, Seq2SeqLM or MaskedLM. "
        "Received: a Task"
    )
    task = keras_hub.models.Task(backbone.input, backbone.output)
    assert_refused(words, keras_mpt.prompt_tune, task, config())


def test_a_model_without_token_ids():
    inputs = keras.Input((3,), name="pixels")
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs), name="vision")
    words = (
        "`backbone` should have an input named 'token_ids' or '*_token_ids'. Received: "
        "backbone='vision' with inputs ['pixels']"
    )
    assert_refused(words, keras_mpt.prompt_tune, model, config())


def test_a_refused_model_leaves_the_backbone_as_it_was():
    backbone = tiny.backbone("plain")
    with pytest.raises(ValueError):
        keras_mpt.prompt_tune(backbone, config(token_dim=15))
    assert backbone.trainable and len(backbone.trainable_variables) == len(backbone.variables)


@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
def test_classes_without_a_task_type_that_has_them(task_type):
    config = keras_mpt.PromptTuningConfig(task_type=task_type, num_virtual_tokens=2)
    with pytest.raises(ValueError) as raised:
        keras_mpt.prompt_tune(tiny.backbone("gpt2"), config, num_classes=[2, 3])
    assert str(raised.value) == (
        "`task_type` should be 'SEQ_CLS' or 'TOKEN_CLS' where `num_classes` is given. Received: "
        f"task_type={task_type!r} with num_classes=[2, 3]"
    )
