"""A classifier with a preprocessor: text at every entrance is as its tokens would be."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
import torch

import keras_mpt
from tests import tiny
from tests.data.tables import Column, DataFrame, Dataset, Series

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


def row_by_row(model, rows):
    """The same of texts and pairs, each of which is alone when it is tokenized."""
    alone = [by_hand(model, [r] if isinstance(r, str) else ([r[0]], [r[1]])) for r in rows]
    names = alone[0].keys() - {"task_ids"}
    return {n: np.concatenate([x[n] for x in alone]) for n in names} | {"task_ids": TASK_IDS}


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
# Two rows are single texts.
MIXED = [TEXTS[0], (TEXTS[1], SECONDS[1]), TEXTS[2], (TEXTS[3], SECONDS[3])]
MIXED_PAIRS = np.array([TEXTS, ["", SECONDS[1], "", SECONDS[3]]]).T
# As (x, y), or a stream.
GIVEN = {
    "lists": ({"text": TEXTS, "task_ids": NAMED}, LABELS.tolist()),
    "arrays": ({"text": np.array(TEXTS), "task_ids": np.array(NAMED)}, LABELS),
    "bytes": ({"text": [t.encode() for t in TEXTS], "task_ids": TASK_IDS}, LABELS),
    "pair": ({"text": (TEXTS, SECONDS), "task_ids": NAMED}, LABELS),
    "list of pairs": ({"text": list(zip(TEXTS, SECONDS, strict=True)), "task_ids": NAMED}, LABELS),
    "array of pairs": ({"text": PAIRS, "task_ids": TASK_IDS}, LABELS),
    "table": (DataFrame({"text": TEXTS, "task_ids": NAMED}), Series(LABELS)),
    "columns": ({"text": Column(TEXTS), "task_ids": Column(NAMED)}, Column(LABELS.tolist())),
    "mixed": ({"text": MIXED, "task_ids": NAMED}, tuple(LABELS.tolist())),
    "mixed generator": lambda x: (
        b for b in [({"text": MIXED, "task_ids": NAMED}, LABELS.tolist())]),
    "tf.data": lambda x: tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(4),
    "PyDataset": lambda x: OneBatch((x, LABELS)),
    "DataLoader": lambda x: torch.utils.data.DataLoader(rows(x, LABELS), batch_size=4),
    "generator": lambda x: (batch for batch in [(x, LABELS)]),
}  # fmt: skip


@pytest.mark.parametrize("given", GIVEN)
def test_fit_evaluate_and_predict_as_on_tokens(compiled, model, given):
    pair = "pair" in given
    tokens = by_hand(model, (TEXTS, SECONDS) if pair else TEXTS)
    if "mixed" in given:
        tokens = row_by_row(model, MIXED)
        assert tokens["token_ids"][1].tolist() == [2, 6, 3, 9, 7, 7, 3, 0]
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


@pytest.mark.parametrize("kind", ["arrays", "tf.data"])
def test_texts_and_pairs_in_one_batch_get_their_own_segments(kind):
    model = reader("bert", "BertTextClassifierPreprocessor", "BertTokenizer")
    expected = row_by_row(model, MIXED)
    assert expected["segment_ids"].any(axis=1).tolist() == [False, True, False, True]
    given = {"text": MIXED_PAIRS, "task_ids": TASK_IDS}
    if kind == "arrays":
        found, _, _ = model.prepared(given)
    else:
        stream, _, _ = model.prepared(tf.data.Dataset.from_tensors((given,)))
        ((found,),) = stream.as_numpy_iterator()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_mix_of_a_task_of_texts_and_one_of_pairs(compiled, model):
    pairs = [MIXED[1], MIXED[3]]
    tokens = row_by_row(model, MIXED)
    datasets = {"tone": (TEXTS[::2], [1, 0]), "topic": (pairs, [2, 1])}
    of_tokens = {
        name: ({k: v[rows] for k, v in tokens.items() if k != "task_ids"}, y)
        for (name, (_, y)), rows in zip(datasets.items(), ([0, 2], [1, 3]), strict=True)
    }
    logs = []
    for data in (datasets, of_tokens):
        reset(*compiled)
        mix = keras_mpt.TaskMix(data, batch_size=4, steps=2)
        logs.append(model.fit(mix, validation_data=keras_mpt.stack_tasks(data), verbose=0).history)
    assert logs[0].keys() == logs[1].keys() >= {"val_tone_loss", "topic_accuracy"}
    for name, expected in logs[1].items():
        np.testing.assert_allclose(logs[0][name], expected, rtol=0, atol=1e-6, err_msg=name)


def test_tables_with_more_than_the_model_takes(model):
    table = Dataset({"text": TEXTS, "task_ids": NAMED, "label": LABELS})
    for call in (model.fit, model.predict):
        with pytest.raises(ValueError) as raised:
            call(table)
        assert str(raised.value) == (
            "`x` should have the columns that the model takes, such as {'text': data['text'], "
            "'task_ids': data['task_ids']}, and `y` that of the targets, such as data['label']. "
            "Received: a table with the columns ['text', 'task_ids', 'label']"
        )


@pytest.mark.parametrize("x", [TEXTS, "good", Series(TEXTS), (TEXTS, SECONDS)])
def test_texts_without_their_tasks(model, x):
    with pytest.raises(ValueError) as raised:
        model.predict(x, verbose=0)
    assert str(raised.value) == (
        "`x` should be a dict with ['token_ids', 'padding_mask', 'task_ids'], or with 'text' in "
        f"the place of tokens. Received: x of type {type(x).__name__}"
    )


@pytest.mark.parametrize("x", [TEXTS, Series(TEXTS), (TEXTS, SECONDS), MIXED, "good", tuple(TEXTS)])
def test_texts_of_a_model_without_tasks(model, x):
    folded = model.fold("tone")
    rows = {"str": ["good"], "tuple": [*zip(TEXTS, SECONDS, strict=True)]}.get(
        type(x).__name__, MIXED if x is MIXED else TEXTS
    )
    rows = TEXTS if x == tuple(TEXTS) else rows
    with_ids = {"text": rows, "task_ids": "tone"}
    expected = model.predict(with_ids, verbose=0)[:, :2]
    np.testing.assert_allclose(folded.predict(x, verbose=0), expected, rtol=0, atol=1e-5)


def test_tokens_instead_of_text_and_mistakes(model):
    words = "`x` should have the inputs ['token_ids', 'padding_mask', 'task_ids'], or 'text' in "
    with pytest.raises(ValueError) as raised:
        model.predict({"texts": TEXTS, "task_ids": NAMED}, verbose=0)
    assert str(raised.value).startswith(words)
    with pytest.raises(ValueError, match="^`task_ids` should name a task: one of "):
        model.fit({"text": TEXTS, "task_ids": ["tone", "tpic", "tone", "tone"]}, LABELS, verbose=0)
    with pytest.raises(ValueError, match="^`task_ids` should have one id per row: 4 of them"):
        model.fit({"text": TEXTS, "task_ids": NAMED[:3]}, LABELS, verbose=0)


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
