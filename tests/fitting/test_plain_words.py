"""What strangers pass by mistake is refused in one sentence, which says what to do."""

import re
import warnings

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import torch

import keras_mpt
from keras_mpt import checks
from tests import tiny
from tests.decoding.language_models import inputs, make
from tests.marks import only_torch
from tests.models.test_classifier_text import LABELS, NAMED, NAMES, SECONDS, TASK_IDS, TEXTS, reader


@pytest.fixture(scope="module")
def model():
    """A classifier of two tasks that takes text of up to eight tokens."""
    return reader("plain", "DistilBertTextClassifierPreprocessor", "DistilBertTokenizer")


def tokens(model, **changes):
    """Inputs as they should be, but for some."""
    return {**tiny.inputs(model.backbone), "task_ids": TASK_IDS, **changes}


def assert_says(words, call, *args, kind=ValueError, **kwargs):
    """The call raises these very words."""
    with pytest.raises(kind, match=f"^{re.escape(words)}$"):
        call(*args, **kwargs)


@only_torch
@pytest.mark.parametrize("entrance", ["fit", "evaluate", "predict", "train_on_batch", "__call__"])
def test_no_rows(model, entrance):
    x = {name: value[:0] for name, value in tokens(model).items()}
    y = {} if entrance in ("predict", "__call__") else {"y": LABELS[:0]}
    call = getattr(model, entrance)
    assert_says(
        "`token_ids` should have at least one row. Received: token_ids of shape (0, 6)",
        call,
        x,
        **y,
    )
    if entrance != "__call__":
        words = "`x` should have at least one row of text. Received: no text"
        assert_says(words, call, {"text": [], "task_ids": []}, **y)


class NoBatches(keras.utils.PyDataset):
    """None at all."""

    @property
    def num_batches(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


@only_torch
@pytest.mark.parametrize("entrance", ["fit", "evaluate", "predict"])
def test_no_batches(model, entrance):
    empty = tf.data.Dataset.from_tensor_slices((tokens(model), LABELS)).batch(4).take(0)
    loader = torch.utils.data.DataLoader([])
    for stream in (NoBatches(), empty, loader):
        words = (
            f"`x` should have at least one batch. Received: a {type(stream).__name__} without any"
        )
        assert_says(words, getattr(model, entrance), stream)


RAGGED = [[1, 2], [3], [4, 5, 6], [7]]


def objects(rows):
    """An array that holds lists."""
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


@only_torch
@pytest.mark.parametrize("entrance", ["predict", "__call__", "generator"])
@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (RAGGED, f"should be an array, or lists of equal lengths. Received: token_ids={RAGGED}"),
        (objects(RAGGED), "should be an array, or lists of equal lengths. Received: token_ids="
         f"{objects(RAGGED)!r}"),
        (tf.ragged.constant(RAGGED), "should be a dense tensor: rows are padded to one length, and "
         "the mask is 0 at padding. Received: token_ids of type RaggedTensor"),
        (torch.nested.nested_tensor([torch.tensor(r) for r in RAGGED], layout=torch.jagged),
         "should be a dense tensor: rows are padded to one length, and the mask is 0 at padding. "
         "Received: token_ids of type NestedTensor"),
        (np.full((4, 6), "5"), "should be integers, in rows of one length. Received: token_ids of "
         "dtype <U1, such as ['5']"),
        (np.full((4, 6), None), "should be integers, in rows of one length. Received: token_ids of "
         "dtype object, such as [None]"),
        (np.full((4, 6), True), "should be integers, in rows of one length. Received: token_ids of "
         "dtype bool, such as [True]"),
    ],
    ids=["lists", "objects", "TensorFlow's", "PyTorch's", "strings", "None", "bool"],
)  # fmt: skip
def test_ids_that_are_no_rows_of_integers(model, ids, words, entrance):
    x = tokens(model, token_ids=ids)
    if entrance == "generator":
        assert_says(f"`token_ids` {words}", model.fit, iter([(x, LABELS)]))
    else:
        assert_says(f"`token_ids` {words}", getattr(model, entrance), x)


def test_ragged_ids_in_tf_data(model):
    ids = tf.ragged.constant(RAGGED, dtype="int32")
    data = tf.data.Dataset.from_tensors({**tokens(model), "token_ids": ids})
    with pytest.raises(ValueError, match="^`token_ids` should be a dense tensor: rows are padded"):
        model.predict(data)


@only_torch
def test_ids_that_are_kept_as_objects_are_ids(model):
    x = tokens(model)
    kept = {name: value.astype(object) for name, value in x.items()}
    kept["token_ids"] = objects(x["token_ids"].tolist())  # As a table keeps them: lists in rows.
    np.testing.assert_array_equal(model.predict(kept, verbose=0), model.predict(x, verbose=0))


UTF_8 = (
    "`x` should have text in UTF-8: decode it with the encoding that it is in. Received: {!r} in "
    "row 3"
)


@only_torch
@pytest.mark.parametrize("wrong", [b"\xff\xfe", "a\ud800"])
def test_text_in_no_encoding(model, wrong):
    x = {"text": [*TEXTS[:3], wrong], "task_ids": NAMED}
    assert_says(UTF_8.format(wrong), model.predict, x)


@only_torch
def test_text_and_tokens(model):
    words = "`x` should have text or tokens, not both. Received: x with ['text'] and {}"
    for names in (["token_ids", "padding_mask"], ["padding_mask"]):
        x = {name: tokens(model)[name] for name in names}
        x |= {"text": TEXTS, "task_ids": NAMED}
        assert_says(words.format(names), model.predict, x)
        assert_says(words.format(names), model.fit, iter([(x, LABELS)]))


@only_torch
def test_a_call_with_text(model):
    x = {"text": TEXTS, "task_ids": NAMED}
    words = (
        "`x` should hold tokens where a model is called: `predict`, `evaluate` and `fit` take "
        "text, and `model.prepared(x)[0]` gives its tokens. Received: x with ['text']"
    )
    assert_says(words, model, x)
    found = keras.ops.convert_to_numpy(model(model.prepared(x)[0]))
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=0, atol=1e-6)


def told(call, *args):
    """What is said of a preprocessor."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        call(*args, verbose=0)
    return [str(w.message) for w in found if "preprocessor" in str(w.message)]


CUT = (
    "The preprocessor cuts text: of 9 tokens of a row it keeps 8. Its sequence length can be set, "
    "up to 30. This is said once."
)


@only_torch
@pytest.mark.parametrize(
    ("fits", "cut"),
    [("good " * 6, "good " * 7), (("good " * 3, "bad vote"), ("good " * 4, "bad vote"))],
)
def test_text_that_is_cut(model, fits, cut):
    """Six tokens of a text, or five of a pair, stand between the special ones."""
    checks._warned.pop(model.preprocessor, None)
    for row, words in [(fits, []), (cut, [CUT]), (cut, [])]:
        x = {"text": [TEXTS[0], row, (TEXTS[1], SECONDS[1])], "task_ids": NAMES[0]}
        assert told(model.predict, x) == words


def test_text_that_is_cut_or_broken_in_tf_data(model):
    checks._warned.pop(model.preprocessor, None)
    rows = [*TEXTS, *TEXTS[:3], "good " * 7, *TEXTS[:3], b"\xff"]
    data = tf.data.Dataset.from_tensor_slices({"text": rows, "task_ids": NAMED * 3}).batch(4)

    def says_utf_8(data, verbose):
        assert_says(UTF_8.format(b"\xff"), model.predict, data, verbose=verbose)

    assert told(says_utf_8, data) == [CUT]


@only_torch
def test_text_of_a_language_model_that_is_cut():
    letters = {letter: i for i, letter in enumerate([*"abcdefgh", "gh", "<|endoftext|>"])}
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=letters, merges=["g h"])
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=6)
    model = make("gpt2", preprocessor)
    # With the two special tokens seven; the last is a target alone.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.prepared({"text": ["abcde", "a"], "task_ids": ["a", "b"]})
    with pytest.warns(UserWarning, match="^The preprocessor cuts text: of 8 tokens .* keeps 6"):
        model.prepared({"text": ["abcdef", "a"], "task_ids": ["a", "b"]})


@only_torch
def test_a_sampler_of_all_beams():
    model = make("gpt2")
    sampler = keras_hub.samplers.BeamSampler(num_beams=2, return_all_beams=True)
    words = (
        "`sampler` should give one text per row: a BeamSampler with return_all_beams=False gives "
        "the likeliest beam. Received: one with return_all_beams=True"
    )
    assert_says(words, model.compile, sampler=sampler)
    model.compile(sampler=keras_hub.samplers.BeamSampler(num_beams=2))
    found = model.generate(inputs("gpt2"), task_ids=0, stop_token_ids=None)
    assert found["token_ids"].shape == inputs("gpt2")["token_ids"].shape


@only_torch
def test_a_config_that_is_not_ours():
    peft = pytest.importorskip("peft")
    backbone, models = tiny.backbone("plain"), keras_mpt.models
    given = peft.MultitaskPromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2)
    for config, kind in [
        (given, "peft.MultitaskPromptTuningConfig"),
        (peft.LoraConfig(), "peft.LoraConfig"),
        ({"num_virtual_tokens": 2}, "builtins.dict"),
        (None, "builtins.NoneType"),
    ]:
        words = (
            "`config` should be a keras_mpt.PromptTuningConfig or MultitaskPromptTuningConfig. "
            "They have PEFT's fields, and `from_pretrained(directory)` reads what PEFT's "
            f"`save_pretrained` wrote. Received: config of type {kind}"
        )
        assert_says(words, keras_mpt.prompt_tune, backbone, config, num_classes=2)
        assert_says(words, models.PromptTunedTextClassifier, backbone, config, [2, 3])
        assert_says(words, models.PromptTunedBackbone, backbone, config)
        assert_says(words, keras_mpt.train_teachers, backbone, {"a": ({}, [])}, "there", config)


def config():
    """A config of two tasks."""
    return keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2
    )


@only_torch
@pytest.mark.parametrize(
    ("given", "meant"),
    [("num_clases", "num_classes"), ("num_labels", "num_classes"), ("preprocesor", "preprocessor"),
     ("poling", "pooling"), ("intialize", "initialize"), ("dtpye", "dtype")],
)  # fmt: skip
def test_a_misspelt_argument_of_a_model(given, meant):
    words = (
        f"`{given}` should be `{meant}`: PromptTunedTextClassifier has no argument of that name. "
        f"Received: {given}=2"
    )
    backbone = tiny.backbone("plain")
    assert_says(words, keras_mpt.prompt_tune, backbone, config(), **{given: 2})
    cls = keras_mpt.models.PromptTunedTextClassifier
    assert_says(words, cls, backbone, config(), **{given: 2})
    assert_says(words, cls, backbone, config(), num_classes=2, **{given: 2})


@only_torch
def test_misspelt_arguments_of_others():
    words = "`{}` should be `{}`: {} has no argument of that name. Received: {}=3"
    name = "MultitaskPromptTuningConfig"
    fields = {"num_virtual_tokens": 2, "num_task": 3}
    assert_says(
        words.format("num_task", "num_tasks", name, "num_task"), getattr(keras_mpt, name), **fields
    )
    fields = {"num_virtual_tokens": 2, "num_tasks": 3, "random_seed": 3}
    assert_says(
        words.format("random_seed", "seed", name, "random_seed"), getattr(keras_mpt, name), **fields
    )
    datasets = {"a": (["x"], [0])}
    expected = words.format("batchsize", "batch_size", "TaskMix", "batchsize")
    assert_says(expected, keras_mpt.TaskMix, datasets, batchsize=3)
    assert keras_mpt.TaskMix(datasets, batch_size=1, workers=2).workers == 2
    with pytest.raises(ValueError, match=r"^`zzz` should be one of \['autocast'|^`zzz` should be "):
        keras_mpt.models.PromptTunedBackbone(tiny.backbone("plain"), config(), zzz=1)


def test_a_class_of_the_user_s_own_has_its_own_arguments():
    class Own(keras_mpt.models.PromptTunedTextClassifier):
        def __init__(self, *args, temperature=1.0, **kwargs):
            super().__init__(*args, **kwargs)
            self.temperature = temperature

    model = Own(tiny.backbone("plain"), config(), [2, 3], temperature=2.0, name="own")
    assert model.temperature == 2.0 and model.name == "own"
    with pytest.raises(ValueError, match="^`temprature` should be `temperature`: Own has no"):
        Own(tiny.backbone("plain"), config(), [2, 3], temprature=2.0)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("save_pretrained", "save_adapter"),
        ("merge_and_unload", "fold"),
        ("get_base_model", "backbone"),
        ("peft_config", "config"),
    ],
)
def test_what_peft_calls_by_another_name(model, name, here):
    with pytest.raises(AttributeError) as raised:
        getattr(model, name)
    words = str(raised.value)
    assert words.startswith(f"'PromptTunedTextClassifier' object has no attribute '{name}': ")
    assert f"`model.{here}" in words and hasattr(model, here)
    assert not hasattr(model, name) and not hasattr(torch.nn.Module, name)


def test_other_names_are_as_unknown_as_ever(model):
    with pytest.raises(AttributeError, match=r"object has no attribute 'prompts'$"):
        model.prompts  # noqa: B018
