"""Classifiers' labels by name, and probabilities over each row's own classes, in float64."""

import dataclasses
import re

import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_torch
from tests.models import test_classifier_text as of_text
from tests.models.classifiers import config, make, randomized

TASKS = ["b", "a", "b", "b"]
LABEL_NAMES = {"b": ["x", "y", "z"]}
COUNTS = np.array([3, 2, 3, 3])


def softmax(logits):
    """Over each row's own classes, which come first."""
    own = np.arange(logits.shape[-1]) < COUNTS.reshape(4, *[1] * (logits.ndim - 1))
    p = np.where(own, np.exp(logits.astype("float64") - logits.max(axis=-1, keepdims=True)), 0)
    return p / p.sum(axis=-1, keepdims=True)


def test_names_of_each_row_s_own_classes():
    model = make(label_names=LABEL_NAMES)
    tiny.with_large_weights(model.backbone)
    x = tiny.inputs(model.backbone)
    # Rows decide, not the task alone.
    mean = model.predict({**x, "task_ids": "b"}, verbose=0).mean(axis=0)
    bias = keras.ops.convert_to_numpy(model.logits.bias)
    model.logits.bias.assign(np.concatenate([bias[:2], bias[2:] - mean]))
    expected = softmax(model.predict({**x, "task_ids": TASKS}, verbose=0))
    best = expected.argmax(axis=1)
    # Task "a" has no names.
    wanted = [
        LABEL_NAMES[t][k] if t in LABEL_NAMES else int(k) for t, k in zip(TASKS, best, strict=True)
    ]
    labels, p = model.predict_labels(x, task_ids=TASKS, return_probabilities=True)
    assert labels == wanted and len(set(labels)) > 2
    assert p.dtype == "float32"
    np.testing.assert_allclose(p, expected, atol=1e-6)
    assert p[1, 2] == 0
    assert model.predict_labels({**x, "task_ids": TASKS}, batch_size=3) == wanted
    of_one = model.predict_labels(x, task_ids="b")
    assert of_one[0] == wanted[0] and set(of_one) <= set(LABEL_NAMES["b"])
    folded = model.fold("b")
    assert folded.predict_labels(x)[::2] == wanted[::2]
    model.set_config(dataclasses.replace(model.config, label_names=None))
    found = model.predict_labels(x, task_ids=TASKS)
    np.testing.assert_array_equal(found, best)


@only_torch
def test_a_shared_head_has_names_by_task():
    model = make("shared head", label_names=LABEL_NAMES)
    x = tiny.inputs(model.backbone)
    best = model.predict({**x, "task_ids": TASKS}, verbose=0).argmax(axis=1)
    wanted = ["xyz"[k] if t == "b" else k for t, k in zip(TASKS, best, strict=True)]
    assert model.predict_labels(x, task_ids=TASKS) == wanted


def test_each_token_s_name_without_padding():
    backbone = tiny.backbone("plain")
    given = config(label_names=LABEL_NAMES)
    model = randomized(keras_mpt.models.PromptTunedTokenClassifier(backbone, given, [2, 3]))
    x = tiny.inputs(backbone)
    expected = softmax(model.predict({**x, "task_ids": TASKS}, verbose=0))
    labels, p = model.predict_labels(x, task_ids=TASKS, return_probabilities=True)
    np.testing.assert_allclose(p, expected * x["padding_mask"][..., None], atol=1e-6)
    for row, (task, own) in enumerate(zip(TASKS, labels, strict=True)):
        best = expected[row].argmax(axis=-1)[: x["padding_mask"][row].sum()]
        names = LABEL_NAMES.get(task, range(3))
        assert own == [names[k] for k in best]
    assert [len(own) for own in labels] == [6, 4, 6, 4]


@only_torch
def test_text():
    model = of_text.reader("plain", "DistilBertTextClassifierPreprocessor", "DistilBertTokenizer")
    x = {"text": of_text.TEXTS, "task_ids": of_text.TASK_IDS}
    wanted = model.predict(x, verbose=0).argmax(axis=1)
    np.testing.assert_array_equal(model.predict_labels(x), wanted)
    beside = model.predict_labels(of_text.TEXTS, task_ids=of_text.TASK_IDS)
    np.testing.assert_array_equal(beside, wanted)
    np.testing.assert_array_equal(model.predict_labels(of_text.TEXTS[1], task_ids=1), wanted[1:2])
    folded = model.fold(1)
    np.testing.assert_array_equal(folded.predict_labels(of_text.TEXTS)[1:3], wanted[1:3])


def numbers():
    """A task of classes, and one of a score."""
    return keras_mpt.models.PromptTunedTextClassifier(tiny.backbone("plain"), config(), [2, 1])


def by_themselves():
    """Classes of which a row may have several."""
    model = make()
    model.compile(loss={"b": keras.losses.BinaryCrossentropy(from_logits=True)})
    return model


def not_finite():
    model = make()
    model.prompt.prompt_embeddings.assign(np.full((3, tiny.WIDTH), np.nan))
    return model


NO_CLASSES = (
    "`x` should have rows of which each has one of several classes. Received: rows of task 'b' "
    "whose outputs are numbers by themselves, which `predict` gives"
)


@only_torch
@pytest.mark.parametrize(
    ("build", "change", "message"),
    [
        (numbers, lambda x: x, NO_CLASSES),
        (by_themselves, lambda x: x, NO_CLASSES),
        (not_finite, lambda x: x, "The model's logits should be finite for it to answer"),
        (make, lambda x: iter([x]), "`x` should be rows in memory for their labels to be told."),
        (make, lambda x: {**x, "task_ids": TASKS}, "`task_ids` should be given once"),
        (make, lambda x: {"text": ["a"]}, "`preprocessor` should be given to the model for it to"),
    ],
)
def test_what_is_refused(build, change, message):
    model = build()
    x = change(tiny.inputs(model.backbone))
    with pytest.raises(ValueError, match=re.escape(message)):
        model.predict_labels(x, task_ids=TASKS)
    if build in (numbers, by_themselves):  # The other task has classes.
        assert len(model.predict_labels(x, task_ids="a")) == 4
    with pytest.raises(ValueError, match="`return_probabilities` should be True or False"):
        model.predict_labels(x, task_ids=TASKS, return_probabilities=1)
    with pytest.raises(ValueError, match="`batch_size` should be a positive integer. Received: b"):
        model.predict_labels(x, task_ids=TASKS, batch_size=0)


def test_a_span_is_no_label():
    assert not hasattr(keras_mpt.models.PromptTunedQuestionAnswerer, "predict_labels")
