"""Arguments stand where people's hands expect them: in Keras's order, and in keras-hub's."""

import inspect

import keras
import keras_hub
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.decoding.language_models import generated, inputs, make
from tests.marks import only_eager

MODELS = keras_mpt.models


def names(function, keyword_only=False):
    """The positional arguments of a function, or those that are keyword-only."""
    kinds = {True: [inspect.Parameter.KEYWORD_ONLY]}
    kinds[False] = [inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD]
    found = inspect.signature(function).parameters.items()
    return [name for name, p in found if p.kind in kinds[keyword_only]]


@pytest.mark.parametrize(
    "method",
    ["fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch", "export"],
)
def test_keras_s_own_methods_have_keras_s_order(method):
    wanted = names(getattr(keras.Model, method))
    assert names(getattr(MODELS.PromptTunedModel, method)) == wanted
    assert names(getattr(keras_mpt.Distillation, method)) == wanted


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MODELS.PromptTunedTextClassifier, keras_hub.models.TextClassifier),
        (MODELS.PromptTunedCausalLM, keras_hub.models.CausalLM),
        (MODELS.PromptTunedMaskedLM, keras_hub.models.MaskedLM),
        (MODELS.PromptTunedSeq2SeqLM, keras_hub.models.Seq2SeqLM),
    ],
)
def test_compile_is_keras_hub_s(ours, theirs):
    for keyword_only in (False, True):
        assert names(ours.compile, keyword_only) == names(theirs.compile, keyword_only)


def test_generate_is_keras_hub_s_and_task_ids_are_by_name():
    wanted = names(keras_hub.models.CausalLM.generate)
    assert names(MODELS.PromptTunedCausalLM.generate) == wanted
    assert names(MODELS.PromptTunedCausalLM.generate, True) == ["task_ids", "use_cache"]
    more = {"score": ["batch_size"]}
    more["predict_labels"] = ["calibrate", "return_probabilities", "batch_size"]
    for name, further in more.items():
        method = getattr(MODELS.PromptTunedCausalLM, name)
        assert names(method) == ["self", "inputs", "candidates"]
        assert names(method, True) == ["task_ids", "normalize", "use_cache", *further]


def test_sizes_come_first_in_both_layers():
    sizes = ["num_virtual_tokens", "token_dim", "num_tasks", "num_ranks"]
    multitask = names(keras_mpt.MultitaskPromptEmbedding)
    assert multitask[:5] == [*sizes, "num_transformer_submodules"]
    single = names(keras_mpt.PromptEmbedding)
    assert single[:3] == [name for name in multitask[:5] if name in single]
    assert names(keras_mpt.multitask_parameter_count) == multitask[:5]


@only_eager
def test_the_second_argument_of_generate_is_a_length():
    model, x = make("gpt2"), {**inputs("gpt2"), "task_ids": [0, 2]}
    made = generated(model.generate(x, 8, None))
    np.testing.assert_array_equal(
        made, generated(model.generate(inputs("gpt2"), stop_token_ids=None, task_ids=[0, 2]))
    )
    for tasks in ([0, 2], "a", np.array([0, 2])):
        with pytest.raises(ValueError, match="`max_length` should be a positive integer. Received"):
            model.generate(inputs("gpt2"), tasks)
    with pytest.raises(TypeError, match="positional argument"):
        model.score(inputs("gpt2"), [[5]], [0, 2])


@only_eager
def test_the_third_argument_of_fit_and_evaluate_is_the_batch_size():
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=2, num_tasks=2)
    model = MODELS.PromptTunedTextClassifier(
        tiny.backbone("plain"), config, {"task_1": 3, "task_0": 2}
    )
    assert model.num_classes == [2, 3]
    x = {**tiny.inputs(model.backbone, rows=6), "task_ids": [0, 1, 1, 0, 1, 0]}
    y = np.array([0, 2, 1, 1, 0, 1])
    model.fit(x, y, 2, 3, 0)
    assert int(model.optimizer.iterations) == 9
    by_name = model.evaluate(x, y, batch_size=3, verbose=0, return_dict=True)
    assert model.evaluate(x, y, 3, 0, None, None, None, True) == by_name
    np.testing.assert_array_equal(model.predict(x, 3, 0), model.predict(x, batch_size=3, verbose=0))


CONFIG = keras_mpt.MultitaskPromptTuningConfig(
    task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2, task_names=["tone", "topic"]
)
BY_NAME = {"topic": 3, "tone": 2}


@only_eager
def test_num_classes_by_name_wherever_they_are_taken(tmp_path):
    backbone = tiny.backbone("bert")
    tuned = keras_mpt.prompt_tune(backbone, CONFIG, num_classes=BY_NAME)
    assert tuned.num_classes == [2, 3]
    classifier = keras_hub.models.BertTextClassifier(backbone, num_classes=2)
    tuned = keras_mpt.prompt_tune(classifier, CONFIG, num_classes=BY_NAME)
    assert tuned.num_classes == [2, 3]
    tokens = MODELS.PromptTunedTokenClassifier(
        backbone, keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=2, num_tasks=2),
        {"task_0": 4, "task_1": 5},
    )  # fmt: skip
    assert tokens.num_classes == [4, 5]
    tuned.save_adapter(tmp_path / "a")
    again = keras_mpt.load_adapter(backbone, tmp_path / "a", num_classes=BY_NAME)
    assert again.num_classes == [2, 3]
    for given in (np.array([2, 3]), (2, 3)):
        assert keras_mpt.prompt_tune(backbone, CONFIG, num_classes=given).num_classes == [2, 3]
        assert keras_mpt.adapt(tuned, ["x", "y"], num_classes=given).num_classes == [2, 3]
    adapted = keras_mpt.adapt(tuned, ["x", "y"], num_classes={"y": 4, "x": 2})
    assert adapted.num_classes == [2, 4]
    assert keras_mpt.adapt(tuned, "x", num_classes={"x": 6}).num_classes == [6]


@only_eager
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tone": 2}, r"those of \['tone', 'topic'\]. Received: none for \['topic'\]"),
        ({**BY_NAME, "irony": 2}, r"Received: none for \[\], and one for unknown \['irony'\]"),
        ({"tone": 2, "topic": True}, "a positive integer, or a list with one per task. Received"),
        ({}, r"none for \['tone', 'topic'\]"),
        (
            np.array(3),
            r"a positive integer, or a list with one per task. Received: num_classes=arr",
        ),
    ],
)
def test_wrong_classes_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        keras_mpt.prompt_tune(tiny.backbone("bert"), CONFIG, num_classes=given)
    if not isinstance(given, dict):
        return
    with pytest.raises(ValueError, match="a positive integer where there are no tasks. Received"):
        single = keras_mpt.PromptTuningConfig(num_virtual_tokens=2, task_type="SEQ_CLS")
        keras_mpt.prompt_tune(tiny.backbone("bert"), single, num_classes=given)
