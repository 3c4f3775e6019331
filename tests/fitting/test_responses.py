"""Prompts and responses: their tokens, what counts of them, what is cut, and what is refused."""

import keras
import numpy as np
import pytest

from tests.decoding.language_models import (
    VOCABULARY,
    causal_preprocessor,
    make,
    seq2seq_preprocessor,
)
from tests.fitting.test_plain_words import assert_says
from tests.marks import only_torch, slow_on_jax

PROMPTS, RESPONSES = ["ab c", "d"], ["a", "bcd"]
DATA = {"prompts": PROMPTS, "responses": RESPONSES, "task_ids": ["a", "c"]}
SPACE, AB, END = VOCABULARY["Ġ"], VOCABULARY["ab"], VOCABULARY["<|endoftext|>"]  # Also the start.
WIDTH = 16


def padded(rows, pad=0, width=WIDTH):
    """Lists as an array."""
    return np.array([row + [pad] * (width - len(row)) for row in rows])


def test_tokens_of_a_causal_model():
    model = make("gpt2", causal_preprocessor(WIDTH))
    x, y, weight = model.prepared({**DATA, "task_ids": [0, 2]}, sample_weight=[2.0, 0.5])
    rows = [[END, AB, SPACE, 2, 0, END], [END, 3, 1, 2, 3, END]]
    ids = padded([row[:-1] for row in rows])
    np.testing.assert_array_equal(x["token_ids"], ids)
    np.testing.assert_array_equal(x["padding_mask"], padded([[1] * 5] * 2))
    np.testing.assert_array_equal(y, padded([row[1:] for row in rows]))
    expected = padded([[0, 0, 0, 2.0, 2.0], [0, 0.5, 0.5, 0.5, 0.5]])[:, :WIDTH]
    np.testing.assert_array_equal(weight, expected)
    assert (y.dtype, weight.dtype) == ("int32", "float32")
    # Prompts alone, as `predict` reads them, and text without tasks' names.
    x, y, weight = model.prepared({"prompts": PROMPTS, "task_ids": ["a", "c"]})
    np.testing.assert_array_equal(x["token_ids"], padded([rows[0][:4], rows[1][:2]]))
    assert y is None
    assert weight is None


@slow_on_jax
def test_losses_and_scores():
    """The loss is that of the response's tokens alone, and what `score` gives."""
    model = make("gpt2", causal_preprocessor(WIDTH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    model.compile(keras.optimizers.SGD(0.01), loss, jit_compile=False)
    x, y, weight = model.prepared(DATA)
    logits = np.asarray(model.predict(x, verbose=0)).astype("float64")
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    log_p = np.take_along_axis(np.log(p / p.sum(axis=-1, keepdims=True)), y[..., None], -1)[..., 0]
    expected = (log_p * weight).sum(axis=1)
    np.testing.assert_allclose(model.score(DATA), expected, rtol=1e-5)
    means = model.score(DATA, normalize="mean")
    np.testing.assert_allclose(means, expected / [2, 4], rtol=1e-5)
    found = model.evaluate(DATA, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], -expected.sum(), rtol=1e-5)
    np.testing.assert_allclose(found["c_loss"], -expected[1], rtol=1e-5)
    np.testing.assert_array_equal(
        model.predict({"prompts": PROMPTS, "task_ids": ["a", "c"]}, verbose=0)[:, 0],
        model.predict(DATA, verbose=0)[:, 0],
    )
    model.fit(DATA, epochs=2, verbose=0)
    assert model.evaluate(DATA, verbose=0)[0] < found["loss"]


@only_torch
@pytest.mark.parametrize("side", ["left", "right"])
def test_long_prompts_are_cut(side):
    # Eight positions, of which a response and its end take three, and the last token is not read.
    model = make("gpt2", causal_preprocessor(8), truncation_side=side)
    data = {"prompts": ["cdefghcd", "ab"], "responses": ["ab", "fgh"], "task_ids": 0}
    x, y, weight = model.prepared({**data, "prompts": ["cdefghcdeff", "ab"]})
    letters = [VOCABULARY[c] for c in "cdefghcdeff"]
    kept = letters[-6:] if side == "left" else letters[:6]
    rows = [[END, *kept, AB, END], [END, AB, 5, 6, 7, END]]
    np.testing.assert_array_equal(x["token_ids"], padded([r[:-1] for r in rows], 0, 8))
    np.testing.assert_array_equal(y, padded([r[1:] for r in rows], 0, 8))
    np.testing.assert_array_equal(weight.sum(axis=1), [2, 4])
    # A candidate's room is free too, as it is in `fit`, and prompts that fit are whole.
    scores = model.score({"prompts": ["cdefghcdeff"]}, ["ab", "a"], task_ids=0)
    own = "".join("cdefghcdeff"[-6:] if side == "left" else "cdefghcdeff"[:6])
    whole = make("gpt2", causal_preprocessor(16)).score([own], ["ab", "a"], task_ids=0)
    np.testing.assert_allclose(scores, whole, rtol=1e-5)
    again = type(model).from_config(model.get_config())
    assert (again.truncation_side, again.add_end_token) == (side, True)
    assert model.fold("a").truncation_side == side


@only_torch
def test_without_an_end():
    model = make("gpt2", causal_preprocessor(), add_end_token=False)
    _, y, weight = model.prepared(DATA)
    np.testing.assert_array_equal(weight, padded([[0, 0, 0, 1], [0, 1, 1, 1]], width=8))
    assert [y[0, 3], *y[1, 1:4]] == [0, 1, 2, 3]
    says = "`responses` should have at least one token each, where no end token follows them. "
    assert_says(f"{says}Received: '' in row 1", model.score, {**DATA, "responses": ["a", ""]})
    # With an end an empty response is one, of a single token.
    _, _, weight = make("gpt2", causal_preprocessor()).prepared({**DATA, "responses": ["a", ""]})
    np.testing.assert_array_equal(weight.sum(axis=1), [2, 1])


@only_torch
def test_tokens_of_an_encoder_decoder():
    model = make("bart", seq2seq_preprocessor(6, 6), truncation_side="left")
    data = {"prompts": ["ab c", "cdefghcd"], "responses": ["a", "bcd"], "task_ids": [0, 2]}
    x, y, weight = model.prepared(data)
    start, end, pad = (VOCABULARY[token] for token in ("<s>", "</s>", "<pad>"))
    # BART's preprocessor starts a decoder with the end token and the start token.
    encoder = [[start, AB, SPACE, 2, end], [start, 6, 7, 2, 3, end]]
    decoder = [[end, start, 0, end], [end, start, 1, 2, 3, end]]
    np.testing.assert_array_equal(x["encoder_token_ids"], padded(encoder, pad, 6))
    np.testing.assert_array_equal(x["encoder_padding_mask"].sum(axis=1), [5, 6])
    np.testing.assert_array_equal(x["decoder_token_ids"], padded([r[:-1] for r in decoder], pad, 6))
    np.testing.assert_array_equal(x["decoder_padding_mask"].sum(axis=1), [3, 5])
    np.testing.assert_array_equal(y, padded([r[1:] for r in decoder], pad, 6))
    np.testing.assert_array_equal(weight, padded([[0, 1, 1], [0, 1, 1, 1, 1]], width=6))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    model.compile("sgd", loss)
    found = model.evaluate(data, verbose=0)[0]
    np.testing.assert_allclose(found, -model.score(data).sum(), rtol=1e-5)
    assert len(model.generate({"prompts": PROMPTS}, task_ids=0)) == 2


REFUSED = {
    "responses alone": (
        {"prompts": None},
        "`x` should have text under ['prompts', 'responses']. Received: x with ['responses']",
    ),
    "prompts alone": (
        {"responses": None},
        "`x` should have 'responses' beside 'prompts', or `y` the classes of tasks with label "
        "words: the loss is computed of them. Received: x with ['prompts', 'task_ids'] and y=None",
    ),
    "with text": (
        {"text": PROMPTS},
        "`x` should have text under ['prompts', 'responses']. Received: x with ['text', 'prompts', "
        "'responses']",
    ),
    "with tokens": (
        {"token_ids": np.ones((2, 3), int)},
        "`x` should have text or tokens, not both. Received: x with ['prompts', 'responses'] and "
        "['token_ids']",
    ),
    "fewer responses": (
        {"responses": ["a"]},
        "`responses` should be as many as `prompts`. Received: 2 prompts and 1 responses",
    ),
    "a number": (
        {"responses": ["a", 3]},
        "`responses` should have a string in each row. Received: 3 in row 1",
    ),
    "None": (
        {"prompts": [None, "a"]},
        "`prompts` should have a string in each row. Received: None in row 0",
    ),
    "NaN": (
        {"responses": np.array(["a", np.nan], object)},
        "`responses` should have a string in each row. Received: nan in row 1",
    ),
    "no rows": (
        {"prompts": [], "responses": []},
        "`prompts` should have at least one row. Received: none",
    ),
    "a long prompt": (
        {"prompts": ["a", "cdefgh"]},
        "`prompts` should fit with their responses: have at most 4 tokens here "
        "(`preprocessor.sequence_length` sets it, up to the backbone's positions), or the model "
        "should have truncation_side='left' or 'right' to cut them. Received: one of 6 tokens in "
        "row 1",
    ),
    "a long response": (
        {"responses": ["a", "cdefghcd"]},
        "`responses` should fit, since they are never cut: have at most 7 tokens here "
        "(`preprocessor.sequence_length` sets it, up to the backbone's positions). Received: one "
        "of 9 tokens in row 1",
    ),
}


@only_torch
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    model = make("gpt2", causal_preprocessor())
    changes, says = REFUSED[case]
    data = {name: v for name, v in {**DATA, **changes}.items() if v is not None}
    assert_says(says, model.fit, data)


@only_torch
def test_validation_data_without_targets_beside_them():
    """As Keras has it, they may be the inputs alone: here these make the targets."""
    model = make("gpt2", causal_preprocessor())
    found = model.fit(DATA, verbose=0, validation_data=DATA).history
    expected = model.evaluate(DATA, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["val_loss"], expected["loss"], rtol=1e-6)
    says = "`y` should be given: the loss is computed of it, unless `compile` was given `loss=None`"
    x = model.prepared(DATA)[0]
    assert_says(f"{says}. Received: y=None", model.fit, DATA, validation_data=x)


@only_torch
def test_refused_beside_them():
    model = make("gpt2", causal_preprocessor())
    assert_says(
        "`label_words` in the config should be of each task whose labels are asked for, so also of "
        "task 'a'. Received: label_words of tasks []",
        model.fit, DATA, [0, 1],
    )  # fmt: skip
    assert_says(
        "`sample_weight` should have one weight per row, (N,), where `x` has 'prompts'. Received: "
        "sample_weight of shape (2, 3)",
        model.fit, DATA, sample_weight=np.ones((2, 3)),
    )  # fmt: skip
    assert_says(
        "`sample_weight` should have one weight per row, (N,), where `x` has 'prompts'. Received: "
        "sample_weight of shape (3,)",
        model.fit, DATA, sample_weight=[1, 2, 3],
    )  # fmt: skip
    assert_says(
        "`sample_weight` should have one weight per row, 2 of them. Received: sample_weight of "
        "shape (3,)",
        model.fit, {"text": PROMPTS, "task_ids": 0}, sample_weight=[1, 2, 3],
    )  # fmt: skip
    assert_says(
        "`candidates` should be left out where `inputs` have 'responses': either are scored. "
        "Received: candidates=['a']",
        model.score, DATA, ["a"],
    )  # fmt: skip
    assert_says(
        "`inputs` should have no 'responses' where labels are asked for. Received: inputs with "
        "['prompts', 'responses', 'task_ids']",
        model.predict_labels, DATA, ["a"],
    )  # fmt: skip
    says = "`truncation_side` should be None, 'left' or 'right'. Received: truncation_side='top'"
    assert_says(says, make, "gpt2", truncation_side="top")
    says = "`add_end_token` should be True or False. Received: add_end_token=1"
    assert_says(says, make, "gpt2", add_end_token=1)
    plain = make("gpt2")
    says = (
        "`preprocessor` should be given to the model for it to take text. Received: "
        "preprocessor=None"
    )
    assert_says(says, plain.predict, DATA)
