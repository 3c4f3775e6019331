"""Generated text: token for token what repeated calls of the model give, under each row's task."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.data.tables import Column, Series
from tests.decoding.language_models import IDS, KINDS, generated, inputs, make
from tests.marks import IS_EAGER, only_eager, only_torch, slow_on_jax

TASK_IDS = [0, 2]


def test_the_sampler_is_saved_with_the_model(tmp_path):
    model = make("gpt2")
    model.compile(sampler=keras_hub.samplers.TopPSampler(p=0.3, k=4, seed=2))
    model.save(tmp_path / "m.keras")
    sampler = keras.saving.load_model(tmp_path / "m.keras").sampler
    assert type(sampler) is keras_hub.samplers.TopPSampler
    assert (sampler.p, sampler.k, sampler.seed) == (0.3, 4, 2)


def assert_greedy(model, kind, out, task_ids):
    """Each new token is the likeliest after those before it, by one call on the whole text."""
    x = {**inputs(kind), "task_ids": task_ids}
    name = "token_ids" if KINDS[kind] == "CAUSAL_LM" else "decoder_token_ids"
    tokens = out[name]
    x |= {name: tokens, name.replace("token_ids", "padding_mask"): np.ones_like(tokens)}
    likeliest = ops.convert_to_numpy(model(x)).argmax(axis=-1)
    is_given = IDS != 0
    np.testing.assert_array_equal(tokens[is_given], IDS[is_given])
    np.testing.assert_array_equal(
        tokens[:, 1:][~is_given[:, 1:]], likeliest[:, :-1][~is_given[:, 1:]]
    )


@pytest.mark.parametrize("kind", KINDS if IS_EAGER else ["gpt2", "bart"])
def test_greedy_equals_the_likeliest_tokens(kind):
    model = make(kind)
    assert model.keeps_cache
    found = model.generate(inputs(kind), task_ids=TASK_IDS, stop_token_ids=None)
    assert_greedy(model, kind, found, TASK_IDS)
    # Weights that change between two calls count, though prompts are kept. The last rows are
    # the decoder's in an encoder-decoder; PEFT drops those in generation.
    values = ops.convert_to_numpy(model.prompt.prompt_embeddings)
    values = np.concatenate([values[:-3], -2 * np.roll(values[-3:], 1)])
    model.prompt.prompt_embeddings.assign(values)
    again = model.generate(inputs(kind), task_ids=["b", "a"], stop_token_ids=None)
    assert_greedy(model, kind, again, [1, 0])
    assert (generated(again) != generated(found)).any()


@slow_on_jax
def test_text_without_the_cache_is_the_same():
    model = make("gpt2")
    samplers = keras_hub.samplers
    # A beam search reorders what is kept; contrastive search reads the states of the text.
    for sampler in (samplers.BeamSampler(num_beams=2), samplers.ContrastiveSampler(k=2, alpha=0.5)):
        model.compile(sampler=sampler)
        texts = [
            model.generate(
                inputs("gpt2"), task_ids=TASK_IDS, stop_token_ids=None, use_cache=use_cache
            )
            for use_cache in (True, False)
        ]
        np.testing.assert_array_equal(*(generated(text) for text in texts))
    # One ordinary prompt is a batch of one task.
    one = model.fold("c")
    model.compile(sampler="greedy")
    one.set_sampler("greedy")
    folded = one.generate(inputs("gpt2"), stop_token_ids=None)
    own = model.generate(inputs("gpt2"), task_ids="c", stop_token_ids=None)
    np.testing.assert_array_equal(generated(folded), generated(own))


def test_stop_tokens_and_stripping():
    model = make("gpt2")
    whole = model.generate(inputs("gpt2"), task_ids=TASK_IDS, stop_token_ids=None)
    assert whole["padding_mask"].all()
    stop = int(whole["token_ids"][1, 3])  # The second new token of row 1.
    out = model.generate(inputs("gpt2"), task_ids=TASK_IDS, stop_token_ids=[stop])
    lengths = []
    for row, given in enumerate((3, 2)):
        text = whole["token_ids"][row].tolist()
        ends = [i for i in range(given, 8) if text[i] == stop]
        lengths.append(ends[0] + 1 if ends else 8)
        assert out["padding_mask"][row].sum() == lengths[row]
        np.testing.assert_array_equal(out["token_ids"][row, : lengths[row]], text[: lengths[row]])
    stripped = model.generate(
        inputs("gpt2"), task_ids=TASK_IDS, stop_token_ids=[stop], strip_prompt=True
    )
    for row, given in enumerate((3, 2)):
        new = stripped["token_ids"][row][stripped["padding_mask"][row]]
        np.testing.assert_array_equal(new, whole["token_ids"][row, given : lengths[row]])


def test_samplers_that_come_down_to_greedy_search():
    model = make("gpt2")
    samplers = keras_hub.samplers
    for sampler in (samplers.TopKSampler(k=1), samplers.BeamSampler(num_beams=1)):
        model.compile(sampler=sampler)
        out = model.generate(inputs("gpt2"), task_ids=TASK_IDS, stop_token_ids=None)
        assert_greedy(model, "gpt2", out, TASK_IDS)


@pytest.fixture(scope="module")
def preprocessor():
    """A byte-pair tokenizer of single letters."""
    letters = [*"abcdefgh", "Ġ", "ab", "<|endoftext|>"]
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["a b"])
    return keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=12)


def test_strings_in_strings_out(preprocessor):
    model = make("gpt2", preprocessor)
    x = {"text": ["d"], "task_ids": ["c"]}  # As `fit` takes them.
    both = model.generate(["ab c", "d"], task_ids=["a", "c"], max_length=8, stop_token_ids=None)
    assert isinstance(both, list)
    assert both[0].startswith("ab c")
    alone = model.generate("d", task_ids=2, max_length=8, stop_token_ids=None)
    assert alone == both[1]
    assert model.generate(x, max_length=8, stop_token_ids=None) == [alone]
    new = model.generate("d", task_ids=2, max_length=8, stop_token_ids=None, strip_prompt=True)
    assert "d" + new == alone
    assert isinstance(model.generate("d", task_ids=2), str)  # To the tokenizer's end token.


@pytest.mark.parametrize("use_cache", [True, False] if IS_EAGER else [True])
def test_padding_with_a_token_to_stop_at_ends_no_row(use_cache):
    """An end token often is the padding too."""
    model, x = make("gpt2"), inputs("gpt2")
    given = x["padding_mask"] != 0
    plain = model.generate(x, task_ids=[0, 2], stop_token_ids=None, use_cache=use_cache)
    end = int(plain["token_ids"][0, 4])  # The first row's second new token.
    expected = model.generate(x, task_ids=[0, 2], stop_token_ids=[end], use_cache=use_cache)
    assert expected["padding_mask"][0].tolist() == [1] * 5 + [0] * 3
    padded = {**x, "token_ids": np.where(given, x["token_ids"], end)}
    found = model.generate(padded, task_ids=[0, 2], stop_token_ids=[end], use_cache=use_cache)
    np.testing.assert_array_equal(found["padding_mask"], expected["padding_mask"])
    there = expected["padding_mask"] != 0
    np.testing.assert_array_equal(found["token_ids"][there], expected["token_ids"][there])
    # Where all rows have ended nothing is drawn: the padding is as it was.
    alone = {name: value[:1] for name, value in padded.items()}
    found = model.generate(alone, task_ids=0, stop_token_ids=[end], use_cache=use_cache)
    np.testing.assert_array_equal(found["token_ids"][0, 4:], [end] * 4)


@only_eager
@pytest.mark.parametrize("column", [tuple, Series, Column])
def test_strings_in_other_columns(preprocessor, column):
    model = make("gpt2", preprocessor)
    texts, names = ["ab c", "d"], ["a", "c"]
    expected = model.generate(texts, task_ids=names, max_length=8, stop_token_ids=None)
    found = model.generate(column(texts), task_ids=names, max_length=8, stop_token_ids=None)
    assert found == expected
    expected = model.prepared({"text": texts, "task_ids": names})
    found = model.prepared({"text": column(texts), "task_ids": column(names)})
    keras.tree.map_structure(np.testing.assert_array_equal, found, expected)


def test_a_pair_is_no_text_of_a_language_model(preprocessor):
    model = make("gpt2", preprocessor)
    with pytest.raises(ValueError) as raised:
        model.fit({"text": ["a", ("b", "c")], "task_ids": ["a", "b"]}, verbose=0)
    assert str(raised.value) == (
        "`x` should have one text per row as 'text', in which a pair's two texts are put together. "
        "Received: ('b', 'c') in row 1"
    )


REFUSED = {
    "no task": ({}, {}, "`task_ids` should "),
    "unknown task": (
        {},
        {"task_ids": [0, 3]},
        r"`task_ids` should lie in \[0, 3\): this model has 3 tasks. Received: task_ids with",
    ),
    "unknown name": ({}, {"task_ids": "d"}, "`task_ids` should name a task: one of"),
    "no stop": (
        {},
        {"task_ids": 0, "stop_token_ids": "auto"},
        "`stop_token_ids` should be None or a list of token ids where the model has no prep",
    ),
    "left padding": (
        {"padding_mask": np.array([[0, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]])},
        {"task_ids": 0},
        "`padding_mask` should be 1 at each row's tokens, then 0: rows are padded on the right",
    ),
    "a length of its own": (
        {},
        {"task_ids": 0, "max_length": 5},
        r"`max_length` should be left out where the inputs are tokens: .* Received: max_length=5 "
        r"with padding_mask of shape \(2, 8\)",
    ),
    "no room": (
        {"padding_mask": np.ones((2, 8), int)},
        {"task_ids": 0},
        r"`max_length` \(without a preprocessor: the length of the inputs\) should leave room for "
        "new tokens. Received: 2 rows that fill all 8 positions",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_wrong_input(what):
    changes, arguments, message = REFUSED[what]
    model = make("gpt2")
    with pytest.raises(ValueError, match=message):
        model.generate({**inputs("gpt2"), **changes}, **{"stop_token_ids": None, **arguments})


def test_strings_without_a_preprocessor_or_room(preprocessor):
    with pytest.raises(ValueError, match="`inputs` should be a dict .* no preprocessor. Received"):
        make("gpt2").generate("a", task_ids=0, stop_token_ids=None)
    with pytest.raises(ValueError, match="`max_length` .* should leave room for new tokens"):
        make("gpt2", preprocessor).generate("a b c d", task_ids=0, max_length=3)


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (None, {}, "`inputs` should be a string or a list of strings, with as many of each"),
        ([], {}, "`inputs` should be a string or a list of strings"),
        (["a", 3], {}, "`inputs` should be a string or a list of strings"),
        ({"encoder_text": "a"}, {}, "`inputs` should be a string or a list of strings"),
        (
            "a",
            {"max_length": 0},
            "`max_length` should be a positive integer. Received: max_length=0",
        ),
    ],
    ids=["nothing", "empty", "a number", "another model's", "no length"],
)
def test_text_that_cannot_be_continued(preprocessor, text, arguments, message):
    with pytest.raises(ValueError, match=message):
        make("gpt2", preprocessor).generate(text, task_ids=0, **arguments)


def test_a_message_shows_the_beginning_of_many_texts(preprocessor):
    with pytest.raises(ValueError, match="should be a string or a list of strings") as caught:
        make("gpt2", preprocessor).generate([3, *["a b c"] * 10_000], task_ids=0)
    assert "Received: inputs=[3, 'a b c', 'a b c'" in str(caught.value)
    assert len(str(caught.value)) < 600


def test_stop_tokens_in_other_forms():
    model = make("gpt2")
    one, several, none = (
        model.generate(inputs("gpt2"), task_ids=TASK_IDS, stop_token_ids=stop)["token_ids"]
        for stop in (7, [7], [])
    )
    np.testing.assert_array_equal(one, several)
    whole = model.generate(inputs("gpt2"), task_ids=TASK_IDS, stop_token_ids=None)["token_ids"]
    np.testing.assert_array_equal(none, whole)


STOPS = ["x", "7", "Auto", 50, -1, 1.5, True, [1.0], [3, True], [[3]], {3}, [None], 2**70, b"x", {}]


@only_torch
@pytest.mark.parametrize("stop", [*STOPS, np.float32(3), np.array(["3"]), np.array([[3]])])
def test_stop_tokens_that_are_none(preprocessor, stop):
    model = make("gpt2", preprocessor)
    words = (
        r"`stop_token_ids` should be 'auto', None, a token id or a list of them, in \[0, 50\)\. "
    )
    for x in (inputs("gpt2"), "a"):
        with pytest.raises(ValueError, match=words + "Received: stop_token_ids="):
            model.generate(x, task_ids=0, stop_token_ids=stop)


@only_torch
def test_stop_tokens_as_numpy_and_tensors():
    model = make("gpt2")
    x = inputs("gpt2")
    wanted = model.generate(x, task_ids=TASK_IDS, stop_token_ids=[7])["padding_mask"]
    for stop in (np.int64(7), np.array(7), np.array([7, 7]), (7,), ops.convert_to_tensor([7])):
        found = model.generate(x, task_ids=TASK_IDS, stop_token_ids=stop)["padding_mask"]
        np.testing.assert_array_equal(found, wanted)


@only_torch
@pytest.mark.parametrize("length", [True, np.True_, 8.0, "8", -1])
def test_lengths_that_are_none(preprocessor, length):
    words = "`max_length` should be a positive integer. Received: max_length="
    with pytest.raises(ValueError, match=words):
        make("gpt2", preprocessor).generate("a", length, task_ids=0)
    with pytest.raises(ValueError, match=words):
        make("gpt2").generate(inputs("gpt2"), length, task_ids=0, stop_token_ids=None)


@only_torch
def test_no_room_is_made_for_a_length_without_positions(preprocessor):
    words = (
        "`max_length` should be at most 29: the backbone has 32 positions and the prompt takes 3"
    )
    model = make("gpt2", preprocessor)
    for length in (30, 2**30):
        with pytest.raises(ValueError, match=words):
            model.generate("a", length, task_ids=0)
    assert isinstance(model.generate("a", 29, task_ids=0), str)


@only_torch
def test_no_rows_are_refused():
    x = {name: value[:0] for name, value in inputs("gpt2").items()}
    model = make("gpt2")
    for act in (
        lambda: model.generate(x, task_ids=0, stop_token_ids=None),
        lambda: model.predict_labels(x, [[1]], task_ids=0),
    ):
        with pytest.raises(ValueError, match="`token_ids` should have at least one row"):
            act()


@only_eager
def test_mixed_text_trains_a_language_model(preprocessor):
    """The preprocessor makes the targets, and weights that leave padding out."""
    model = make("gpt2", preprocessor)
    texts = {"a": ["ab c", "d e f"], "b": ["g"], "c": ["h h", "a b"]}
    mix = keras_mpt.TaskMix({name: (t, None) for name, t in texts.items()}, batch_size=4)
    assert len(mix[0]) == 1
    history = model.fit(mix, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    # A weight per row multiplies that of each token.
    x = {"text": ["ab c", "d e f"], "task_ids": ["a", "c"]}
    first, second = (
        model.evaluate({k: [v[i]] for k, v in x.items()}, verbose=0)[0] for i in range(2)
    )
    both = model.evaluate(x, sample_weight=[2.0, 0.5], verbose=0)[0]
    tokens = ops.convert_to_numpy(model.prepared(x)[2]).sum(axis=1)
    one, other = np.array([2.0, 0.5]) * tokens
    np.testing.assert_allclose(both, (one * first + other * second) / (one + other), rtol=1e-5)


@pytest.mark.parametrize("sampler", ["nonsense", "Greedy", 3, None])
def test_a_sampler_that_keras_hub_does_not_know(sampler):
    model = make("gpt2")
    optimizer, known = model.optimizer, model.sampler
    message = r"`sampler` should be a keras_hub.samplers.Sampler or the name of one.* Received: "
    with pytest.raises(ValueError, match=f"{message}sampler={sampler!r}"):
        model.compile(sampler=sampler)
    assert model.optimizer is optimizer
    assert model.sampler is known


@pytest.mark.parametrize("wrong", [-100, -1, 50])
def test_labels_that_are_no_tokens(wrong):
    """Backends differ: zero loss, an error, or no number."""
    model = make("gpt2")
    x = {**inputs("gpt2"), "task_ids": TASK_IDS}
    y = np.where(IDS == 0, wrong, IDS)
    with pytest.raises(ValueError) as raised:
        model.fit(x, y, verbose=0)
    assert str(raised.value) == (
        "`y` should hold token ids in [0, 50), also where they do not count: those have a "
        "`sample_weight` of 0, or are the loss's `ignore_class`. Received: y with "
        f"[{wrong}]"
    )


def test_labels_that_the_loss_ignores():
    model = make("gpt2")
    x = {**inputs("gpt2"), "task_ids": TASK_IDS}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    model.compile(loss=loss, weighted_metrics=None)
    found = model.evaluate(x, np.where(IDS == 0, -100, IDS), verbose=0)
    logits = model.predict(x, verbose=0).astype("float64")
    log_p = logits - logits.max(-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, IDS[..., None], -1)[..., 0]
    found = found[0] if isinstance(found, list) else found
    np.testing.assert_allclose(found, losses[IDS != 0].mean(), rtol=1e-5)
