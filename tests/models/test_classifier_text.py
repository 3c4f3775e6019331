"""A classifier with a preprocessor: text at every entrance is as its tokens would be."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import torch

import keras_mpt
from tests import tiny

NAMES, TASK_IDS, LABELS = ["tone", "topic"], np.array([0, 1, 1, 0]), np.array([1, 2, 0, 0])
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "goal", "vote", "the"]
TEXTS = ["good the goal", "bad", "the vote unheard", "vote vote good"]
SECONDS = ["bad vote", "the goal goal", "good", "bad bad"]


def reader(kind, preprocessor_name, tokenizer_name):
    """A classifier of large random weights that takes text of up to eight tokens."""
    tokenizer = getattr(keras_hub.tokenizers, tokenizer_name)(WORDS, lowercase=True)
    preprocessor = getattr(keras_hub.models, preprocessor_name)(tokenizer, sequence_length=8)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(
        tiny.backbone(kind), config, num_classes=[2, 3], preprocessor=preprocessor
    )
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.normal(scale=0.5, size=variable.shape))
    return model


@pytest.fixture(scope="module")
def compiled():
    """A model, compiled once for all tests, and the values that it starts from."""
    model = reader("plain", "DistilBertTextClassifierPreprocessor", "DistilBertTokenizer")
    model.compile(keras.optimizers.SGD(0.5), jit_compile=keras.backend.backend() == "jax")
    return model, [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]


@pytest.fixture
def model(compiled):
    """The model at its start."""
    reset(*compiled)
    return compiled[0]


def reset(model, values):
    """Back to the start."""
    for variable, value in zip(model.trainable_variables, values, strict=True):
        variable.assign(value)


def by_hand(model, texts):
    """Token ids and masks from the preprocessor, and task ids."""
    tokens = model.preprocessor(x=texts)
    return {name: np.asarray(v) for name, v in tokens.items()} | {"task_ids": TASK_IDS}


class OneBatch(keras.utils.PyDataset):
    """One batch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


def rows(x, y):
    """A list of single rows, as a dataset of PyTorch holds them."""
    return [({name: v[i] for name, v in x.items()}, y[i]) for i in range(len(y))]


NAMED = [NAMES[k] for k in TASK_IDS]
PAIRS = np.array([TEXTS, SECONDS]).T
# As (x, y), or a stream.
GIVEN = {
    "lists": ({"text": TEXTS, "task_ids": NAMED}, LABELS.tolist()),
    "arrays": ({"text": np.array(TEXTS), "task_ids": np.array(NAMED)}, LABELS),
    "bytes": ({"text": [t.encode() for t in TEXTS], "task_ids": TASK_IDS}, LABELS),
    "pair": ({"text": (TEXTS, SECONDS), "task_ids": NAMED}, LABELS),
    "list of pairs": ({"text": list(zip(TEXTS, SECONDS, strict=True)), "task_ids": NAMED}, LABELS),
    "array of pairs": ({"text": PAIRS, "task_ids": TASK_IDS}, LABELS),
    "tf.data": lambda x: tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(4),
    "PyDataset": lambda x: OneBatch((x, LABELS)),
    "DataLoader": lambda x: torch.utils.data.DataLoader(rows(x, LABELS), batch_size=4),
    "generator": lambda x: (batch for batch in [(x, LABELS)]),
}


@pytest.mark.parametrize("given", GIVEN)
def test_fit_evaluate_and_predict_as_on_tokens(compiled, model, given):
    pair = "pair" in given
    tokens = by_hand(model, (TEXTS, SECONDS) if pair else TEXTS)
    assert (tokens["token_ids"][0] == [2, 5, 9, 7, 3, *([6, 8, 3] if pair else [0, 0, 0])]).all()

    def data():
        if isinstance(GIVEN[given], tuple):
            return GIVEN[given]
        return (GIVEN[given]({"text": TEXTS, "task_ids": NAMED}),)

    expected = model.predict(tokens, verbose=0)
    np.testing.assert_allclose(model.predict(data()[0], verbose=0), expected, rtol=0, atol=1e-6)
    expected = model.evaluate(tokens, LABELS, verbose=0, return_dict=True)
    found = model.evaluate(*data(), verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=0, abs=1e-6)
    model.fit(tokens, LABELS, shuffle=False, verbose=0)
    trained = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    reset(*compiled)
    model.fit(*data(), shuffle=False, verbose=0)
    for variable, value in zip(model.trainable_variables, trained, strict=True):
        np.testing.assert_allclose(variable, value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pair", [False, True])
def test_a_task_mix_of_texts_is_one_of_tokens(compiled, model, pair):
    def text(rows):
        texts, seconds = ([x[i] for i in rows] for x in (TEXTS, SECONDS))
        return (texts, seconds) if pair else texts

    first, second = [0, 3], [1, 2]
    mixes = [
        keras_mpt.TaskMix(
            {"tone": (get(first), LABELS[first]), "topic": (get(second), LABELS[second])},
            batch_size=4, steps=2,
        )
        for get in (text, lambda rows: {k: np.asarray(v) for k, v in
                                        model.preprocessor(x=text(rows)).items()})
    ]  # fmt: skip
    logs = []
    for mix in mixes:
        reset(*compiled)
        logs.append(model.fit(mix, epochs=2, shuffle=False, verbose=0).history)
    assert logs[0].keys() == logs[1].keys() >= {"tone_loss", "topic_accuracy"}
    for name, expected in logs[1].items():
        np.testing.assert_allclose(logs[0][name], expected, rtol=0, atol=1e-6, err_msg=name)


def test_text_pairs_get_their_segments():
    model = reader("bert", "BertTextClassifierPreprocessor", "BertTokenizer")
    x = by_hand(model, (TEXTS, SECONDS))
    assert x["segment_ids"].any()
    found = model.predict({"text": (TEXTS, SECONDS), "task_ids": NAMED}, verbose=0)
    np.testing.assert_allclose(found, keras.ops.convert_to_numpy(model(x)), rtol=0, atol=1e-6)
    zeros = {**x, "segment_ids": np.zeros_like(x["segment_ids"])}
    assert np.abs(found - keras.ops.convert_to_numpy(model(zeros)))[:, :2].max() > 1e-4


def test_tokens_instead_of_text_and_mistakes(model):
    words = "`x` should have the inputs ['token_ids', 'padding_mask', 'task_ids'], or 'text' in "
    with pytest.raises(ValueError) as raised:
        model.predict({"texts": TEXTS, "task_ids": NAMED}, verbose=0)
    assert str(raised.value).startswith(words)
    with pytest.raises(ValueError, match="^`task_ids` should name a task: one of "):
        model.fit({"text": TEXTS, "task_ids": ["tone", "tpic", "tone", "tone"]}, LABELS, verbose=0)
    with pytest.raises(ValueError, match="^`task_ids` should have one id per row: 4 of them"):
        model.fit({"text": TEXTS, "task_ids": NAMED[:3]}, LABELS, verbose=0)


def test_a_mix_in_another_order_is_refused(model):
    datasets = {"topic": (TEXTS[2:], [2, 0]), "tone": (TEXTS[:2], [0, 1])}
    with pytest.raises(ValueError) as raised:
        model.fit(keras_mpt.TaskMix(datasets, batch_size=2), verbose=0)
    assert str(raised.value) == (
        "`x` should mix the model's tasks in the model's order, ['tone', 'topic']. Received: x "
        "with tasks ['topic', 'tone']"
    )


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0.0, 2.0, 0.0, 2.0], "[0, 2), the classes of task 'tone'. Received: label 2.0 in row 3"),
        ([0.5, 1.0, 0.0, 1.0], "[0, 2), the classes of task 'tone'. Received: label 0.5 in row 0"),
    ],
)
def test_float_labels_are_checked_too(model, y, words):
    with pytest.raises(ValueError) as raised:
        model.fit({"text": TEXTS, "task_ids": TASK_IDS}, np.array(y), verbose=0)
    assert str(raised.value) == f"`y` should hold labels in {words}, and 1 wrong labels in all"


@pytest.mark.parametrize("wrong", [None, float("nan"), 3, ("a", "b", "c")])
def test_text_that_is_no_text(model, wrong):
    x = {"text": [*TEXTS[:3], wrong], "task_ids": TASK_IDS}
    for call in (lambda: model.fit(x, LABELS, verbose=0), lambda: model.predict(x, verbose=0)):
        with pytest.raises(ValueError) as raised:
            call()
        assert str(raised.value) == (
            f"`x` should have strings as text, or pairs of them. Received: {wrong!r} in row 3"
        )


def test_labels_that_are_no_numbers(model):
    x = {"text": TEXTS, "task_ids": TASK_IDS}
    with pytest.raises(ValueError) as raised:
        model.fit(x, ["good", "bad", "good", "bad"], verbose=0)
    assert str(raised.value) == (
        "`y` should hold the classes' numbers, from 0 on. Received: y of dtype <U4, such as "
        "['good']"
    )
    numbers = [1, 0, 1, 0]
    losses = [model.evaluate(x, np.array(numbers, dtype), verbose=0)[0] for dtype in (int, bool)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("entrance", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_labels_left_out(model, entrance):
    x = {"text": TEXTS, "task_ids": TASK_IDS}
    with pytest.raises(ValueError) as raised:
        getattr(model, entrance)(x)
    assert str(raised.value) == (
        "`y` should be given: the loss is computed of it, unless `compile` was given `loss=None`. "
        "Received: y=None"
    )
    assert len(model.predict_on_batch(x)) == len(TEXTS)


def test_a_stream_without_labels(model):
    mix = keras_mpt.TaskMix({"tone": (TEXTS, None), "topic": (TEXTS, None)}, batch_size=4)
    with pytest.raises(ValueError, match="^`y` should be given: the loss is computed of it"):
        model.fit(mix, verbose=0)
