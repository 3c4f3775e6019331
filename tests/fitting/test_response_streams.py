"""Prompts and responses in streams: what arrays of the same rows give, batch by batch."""

import grain
import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import keras_mpt
from tests.decoding.language_models import causal_preprocessor
from tests.decoding.test_label_words import model_with
from tests.fitting.test_plain_words import assert_says
from tests.fitting.test_streams import Batches
from tests.marks import only_torch, slow_on_jax

WORDS = {"a": ["b", "a"], "c": ["ab", "d", "c"]}
# Batches of two widths: the last one's rows are longer than the others'.
DATA = {
    "prompts": ["ab", "d", "ca", "h", "cdefgh" * 3, "cde"],
    "responses": ["", "gh", "", "", "", "c"],
    "task_ids": [0, 1, 2, 0, 2, 1],
}
Y, WEIGHT = np.array([1, -100, 2, 0, 1, -100]), np.array([1, 2, 1, 1, 0.5, 1], "float32")
KINDS = ("tf.data", "PyDataset", "DataLoader", "MapDataset", "generator")


def stream(kind):
    """The rows, two in a batch."""
    columns = {n: np.array(v) for n, v in DATA.items()}
    rows = [({n: v[i] for n, v in columns.items()}, Y[i], WEIGHT[i]) for i in range(6)]
    batches = [
        ({n: v[i : i + 2] for n, v in columns.items()}, Y[i : i + 2], WEIGHT[i : i + 2])
        for i in range(0, 6, 2)
    ]
    match kind:
        case "tf.data":
            return tf.data.Dataset.from_tensor_slices((columns, Y, WEIGHT)).batch(2)
        case "PyDataset":
            return Batches(batches, 3, workers=0)
        case "DataLoader":
            rows = [({n: v if n == "task_ids" else str(v) for n, v in x.items()}, y, w)
                    for x, y, w in rows]  # fmt: skip
            return torch.utils.data.DataLoader(rows, 2)
        case "MapDataset":
            return grain.MapDataset.source(rows).batch(2)
        case "generator":
            return (batch for batch in batches)


@pytest.fixture(scope="module")
def model():
    """A model whose loss is a sum: batches of other sizes add up to the same."""
    made = model_with(WORDS, preprocessor=causal_preprocessor(28))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    made.compile(keras.optimizers.SGD(0.0), loss, jit_compile=False)
    return made


@pytest.fixture(scope="module")
def expected(model):
    """The loss of each batch, and the accuracies of all."""

    def rows(i):
        return {n: v[i : i + 2] for n, v in DATA.items()}, Y[i : i + 2], WEIGHT[i : i + 2]

    found = model.evaluate(DATA, Y, sample_weight=WEIGHT, verbose=0, return_dict=True)
    losses = [model.test_on_batch(*rows(i), return_dict=True)["loss"] for i in range(0, 6, 2)]
    return {**found, "loss": np.mean(losses)}


@slow_on_jax
@pytest.mark.parametrize("kind", KINDS)
def test_streams_give_what_arrays_give(model, expected, kind):
    found = model.evaluate(stream(kind), verbose=0, return_dict=True)
    for name in ("loss", "accuracy", "a_accuracy", "b_accuracy", "c_accuracy"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)
    widths = {x["token_ids"].shape[1] for x, _, _ in map(list, batches_of(model, kind))}
    assert len(widths) > 1, widths


def batches_of(model, kind):
    """What `fit` would be given of a stream."""
    prepared, _, _ = model.prepared(stream(kind))
    if kind == "PyDataset":
        return [prepared[i] for i in range(3)]
    return [batch for _, batch in zip(range(3), prepared, strict=False)]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Steps are traced before there are tokens"
)
@pytest.mark.parametrize("kind", ["tf.data", "tokens"])
def test_words_are_first_asked_for_in_a_step(model, kind):
    fresh = model_with(WORDS, preprocessor=causal_preprocessor(28))
    x, y, weight = model.prepared(DATA, Y, WEIGHT)
    given = (stream(kind),) if kind == "tf.data" else (x, y)
    weights = {} if kind == "tf.data" else {"sample_weight": weight}
    found = fresh.evaluate(*given, **weights, verbose=0, return_dict=True)
    expected = model.evaluate(DATA, Y, sample_weight=WEIGHT, verbose=0, return_dict=True)
    for name in ("accuracy", "a_accuracy", "b_accuracy", "c_accuracy"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, err_msg=name)


@slow_on_jax
def test_mixes_of_labels_and_responses_train(model):
    datasets = {
        "b": ({"prompts": ["cd", "h"] * 4, "responses": ["gh", "d"] * 4}, None),
        "a": ({"prompts": ["ab", "cdefgh" * 3] * 4}, [0, 1] * 4),
    }
    mix = keras_mpt.TaskMix(datasets, batch_size=2, max_tasks_per_batch=2, shuffle=False)
    history = model.fit(mix, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert {"a_accuracy", "b_accuracy"} <= set(history)


@only_torch
@pytest.mark.parametrize("kind", ["tf.data", "generator"])
def test_errors_of_streams(model, kind):
    texts = {"prompts": ["a", "b" * 40], "responses": ["c", "d"], "task_ids": [1, 1]}
    data = tf.data.Dataset.from_tensor_slices(({n: np.array(v) for n, v in texts.items()},))
    given = data.batch(2) if kind == "tf.data" else ((texts,) for _ in range(1))
    assert_says(
        "`prompts` should fit with their responses: have at most 26 tokens here "
        "(`preprocessor.sequence_length` sets it, up to the backbone's positions), or the model "
        "should have truncation_side='left' or 'right' to cut them. Received: one of 40 tokens in "
        "row 1",
        model.fit, given, verbose=0,
    )  # fmt: skip


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras takes shapes of batches there alone"
)
def test_an_only_batch_of_another_width_in_a_later_epoch(model):
    batches = [({n: np.array(v)[i : i + 2] for n, v in DATA.items()}, Y[i : i + 2]) for i in (0, 4)]

    class Drawn(Batches):
        def on_epoch_end(self):
            self.batches = self.batches[::-1]

    drawn = Drawn(batches, 1, workers=0)
    losses = model.fit(drawn, epochs=2, verbose=0).history["loss"]
    assert losses[0] != losses[1]


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="other backends take parts of any width"
)
def test_parts_of_a_mix_are_as_wide_as_the_whole_batch(model):
    rows = {"a": [0, 3], "b": [1, 5], "c": [2, 4]}
    text = {n: np.array(DATA[n]) for n in ("prompts", "responses")}
    tasks = {k: ({n: v[i] for n, v in text.items()}, Y[i]) for k, i in rows.items()}

    def batches(**kwargs):
        mix = keras_mpt.TaskMix(tasks, 2, steps=4, shuffle=False, **kwargs)
        prepared, _, _ = model.prepared(mix)
        return [prepared[i] for i in range(4)]

    whole = batches()
    parts = [batches(shard=(index, 2)) for index in range(2)]
    # Alone, the shorter row of such a batch is less wide.
    assert len({x["token_ids"].shape[1] for x, *_ in whole}) > 1
    for i, batch in enumerate(whole):
        found = keras.tree.map_structure(lambda *v: np.concatenate(v), *(p[i] for p in parts))
        for value, other in zip(*map(keras.tree.flatten, (found, batch)), strict=True):
            np.testing.assert_array_equal(value, other)
