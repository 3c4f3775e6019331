"""Scores of candidates: their forms, text, what is computed once, and what is refused."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.decoding.beginnings import RUNS, groups
from tests import tiny
from tests.decoding.language_models import (
    IDS,
    KINDS,
    VOCABULARY,
    causal_preprocessor,
    inputs,
    make,
    seq2seq_preprocessor,
)
from tests.marks import IS_EAGER, only_eager, slow_on_jax

TASK_IDS = [0, 2]
CANDIDATES = [[8], [9, 10, 11], [12, 13]]


def by_predict(model, x, candidates, task_ids):
    """The sums (B, C) of `predict`'s logits, the softmax taken in float64."""
    sums = np.zeros((len(task_ids), len(candidates)))
    side = "decoder_" if "decoder_token_ids" in x else ""
    for b, c in np.ndindex(sums.shape):
        text = x[f"{side}token_ids"][b][x[f"{side}padding_mask"][b] != 0]
        whole = np.concatenate([text, candidates[c]])[None].astype("int32")
        own = {name: value[b : b + 1] for name, value in x.items()}
        own |= {f"{side}token_ids": whole, f"{side}padding_mask": np.ones_like(whole)}
        own["task_ids"] = np.array(task_ids[b : b + 1])
        logits = np.asarray(model.predict(own, verbose=0))[0].astype("float64")
        p = np.exp(logits - logits.max(axis=-1, keepdims=True))
        log_p = np.log(p / p.sum(axis=-1, keepdims=True))
        sums[b, c] = sum(log_p[i - 1, whole[0, i]] for i in range(len(text), len(whole[0])))
    return sums


@pytest.mark.parametrize("kind", KINDS if IS_EAGER else ["gpt2"])
def test_scores_and_labels(kind):
    model, x = make(kind), inputs(kind)
    expected = by_predict(model, x, CANDIDATES, task_ids=TASK_IDS)
    found = model.score(x, CANDIDATES, task_ids=TASK_IDS)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    mean = model.score(x, CANDIDATES, task_ids=TASK_IDS, normalize="mean")
    assert mean.dtype == "float32"
    np.testing.assert_allclose(mean, expected / [1, 3, 2], rtol=1e-5)
    for normalize, scores in (("sum", expected), ("mean", expected / [1, 3, 2])):
        labels = model.predict_labels(x, CANDIDATES, task_ids=TASK_IDS, normalize=normalize)
        np.testing.assert_array_equal(labels, scores.argmax(axis=1))
    # Task ids beside the tokens, and one task for all rows.
    np.testing.assert_array_equal(found, model.score({**x, "task_ids": TASK_IDS}, CANDIDATES))
    one = model.score(x, CANDIDATES, task_ids="c")
    np.testing.assert_allclose(one[1], found[1], rtol=1e-6)
    assert np.abs(one[0] - found[0]).max() > 1e-3
    # Weights that change between two calls count: nothing is kept from one to the next.
    prompt = model.prompt.prompt_embeddings
    prompt.assign(-2 * np.roll(ops.convert_to_numpy(prompt), 1))
    expected = by_predict(model, x, CANDIDATES, task_ids=TASK_IDS)
    assert np.abs(found - expected).max() > 1e-2
    np.testing.assert_allclose(model.score(x, CANDIDATES, task_ids=TASK_IDS), expected, rtol=1e-5)


def test_candidates_of_each_row():
    model, x = make("gpt2"), inputs("gpt2")
    lists = [[[8], [9, 10, 11]], [[12, 13], np.array([7])]]
    found = model.score(x, lists, task_ids=TASK_IDS)
    for row, candidates in enumerate(lists):
        expected = by_predict(model, x, candidates, TASK_IDS)[row]
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)
    best = model.predict_labels(x, lists, task_ids=TASK_IDS)
    np.testing.assert_array_equal(best, found.argmax(axis=1))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=slow_on_jax)])
def test_all_tokens_have_a_probability_of_one(dtype):
    """In bfloat16 a softmax would be off by a hundredth."""
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=3)
    backbone = tiny.backbone("gpt2", dtype=dtype)
    model = keras_mpt.models.PromptTunedCausalLM(backbone, config)
    for use_cache in (True, False) if IS_EAGER else (True,):
        scores = model.score(
            inputs("gpt2"), [[i] for i in range(tiny.VOCABULARY)], use_cache=use_cache
        )
        np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-4)
    # The same for the second token, given the first.
    first = model.score(inputs("gpt2"), [[5]])
    both = model.score(inputs("gpt2"), [[5, i] for i in range(tiny.VOCABULARY)])
    np.testing.assert_allclose(np.exp(both - first).sum(axis=1), 1, atol=1e-4)


@pytest.mark.skipif(not IS_EAGER, reason="elsewhere functions are traced once, whatever they do")
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_the_input_runs_once(kind, monkeypatch):
    model, x = make(kind), inputs(kind)
    kept = model.prefix_cache if kind == "gpt2" else model.decoder_cache
    step, shapes = kept.step, []

    def counted(token_ids, *args, **kwargs):
        shapes.append(tuple(token_ids.shape))
        return step(token_ids, *args, **kwargs)

    monkeypatch.setattr(kept, "step", counted)
    model.score(x, CANDIDATES, task_ids=TASK_IDS)
    # An encoder-decoder reads its text in `after`, which is no step.
    read = [(2, 16 + 2)] if kind == "gpt2" else []
    # Per length of row: the candidates of more than one token, without their last.
    assert shapes == [*read, (2, 2), (2, 2)]
    shapes.clear()
    # Of one token, candidates follow from what was read.
    model.score(x, [[8], [9]], task_ids=TASK_IDS)
    assert shapes == ([(2, 16)] if kind == "gpt2" else [])
    if kind == "t5":
        encode, calls = model.encoder_once.encode, []
        monkeypatch.setattr(
            model.encoder_once, "encode", lambda *args: calls.append(0) or encode(*args)
        )
        model.score(x, CANDIDATES, task_ids=TASK_IDS)
        assert len(calls) == 1


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        ([[8], [9]], []),
        ([[8, 9], [7, 9]], [[0], [1]]),
        ([[8, 9], [8, 7], [8, 9]], [[0, 1, 2]]),
        ([[8, 9], [8, 9, 7], [8, 9, 6, 5], [8, 7, 4]], [[2, 1], [3, 0]]),
        ([[5, 5], [5], [5, 5, 5], [5, 5, 5, 5]], [[3, 2, 0]]),
        # Not what looks like a beginning but for its padding, which is the token 0.
        ([[5, 0, 1], [5, 1], [0, 5, 2], [0, 0, 2], [0, 1]], [[0, 1], [2], [3, 4]]),
        ([[8, 6, 1], [8, 5, 1], [8, 1], [9, 1], [8, 6, 7, 1]], [[3], [4, 0], [1, 2]]),
    ],
)
def test_what_begins_alike_is_one_run(candidates, expected):
    lengths = np.array(list(map(len, candidates)))
    ids = np.zeros((len(candidates), lengths.max()), "int32")
    for row, candidate in zip(ids, candidates, strict=True):
        row[: len(candidate)] = candidate
    found = groups(ids, lengths)
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    for first, *others in found:
        longest = candidates[first][:-1]
        assert all(longest[: len(candidates[c]) - 1] == candidates[c][:-1] for c in others)


BEGIN_ALIKE = [[8, 9, 7], [6], [8, 9, 5], [8, 4], [7, 7, 7, 7], [7, 7], [8, 9, 7]]


@pytest.mark.parametrize("kind", ["gpt2", "t5"] if IS_EAGER else ["gpt2"])
@pytest.mark.parametrize("use_cache", [True, pytest.param(False, marks=only_eager)])
def test_candidates_that_begin_alike(kind, use_cache):
    model, x = make(kind), inputs(kind)
    expected = by_predict(model, x, BEGIN_ALIKE, TASK_IDS)
    found = model.score(x, BEGIN_ALIKE, task_ids=TASK_IDS, use_cache=use_cache)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # A list for each row: other ones begin alike.
    lists = [BEGIN_ALIKE, [[3], [3, 4], [8, 9, 7], [2, 2], [2, 3], [2, 4], [2, 5, 6]]]
    found = model.score(x, lists, task_ids=TASK_IDS, use_cache=use_cache)
    for row, candidates in enumerate(lists):
        expected = by_predict(model, x, candidates, TASK_IDS)[row]
        np.testing.assert_allclose(found[row], expected, rtol=1e-5)


@only_eager
def test_a_beginning_runs_once(monkeypatch):
    model, x = make("gpt2"), inputs("gpt2")
    step, rows = model.prefix_cache.step, []

    def counted(token_ids, *args, **kwargs):
        rows.append(token_ids.shape[0])
        return step(token_ids, *args, **kwargs)

    monkeypatch.setattr(model.prefix_cache, "step", counted)
    # 40 candidates of three tokens with two beginnings, of rows of two lengths: after the texts,
    # two runs for each row and not 40.
    candidates = [[8 + i % 2, 7, 5 + i] for i in range(40)]
    found = model.score(x, candidates, task_ids=TASK_IDS)
    assert rows == [2, 2, 2]
    expected = by_predict(model, x, candidates, TASK_IDS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_more_beginnings_than_run_at_once():
    """As many as there are tokens, after each of which one token comes."""
    model = keras_mpt.models.PromptTunedCausalLM(
        tiny.backbone("gpt2"), keras_mpt.PromptTuningConfig(num_virtual_tokens=3)
    )
    assert RUNS < 2 * tiny.VOCABULARY
    x = inputs("gpt2")
    both = model.score(x, [[i, j] for i in range(tiny.VOCABULARY) for j in (5, 6)])
    for which in (0, 7, 49):
        found = model.score(x, [[which, 5], [which, 6]])
        np.testing.assert_allclose(both[:, 2 * which : 2 * which + 2], found, rtol=1e-5)


def test_up_to_the_last_position():
    model = make("gpt2")
    room = tiny.POSITIONS - 3
    ids = np.arange(room - 2)[None] % 40 + 1
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    found = model.score(x, [[5, 6], [7]], task_ids=[1])
    expected = by_predict(model, x, [[5, 6], [7]], [1])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(
        ValueError,
        match=f"`inputs` and `candidates` should have at most {room} tokens together: the backbone "
        f"has {tiny.POSITIONS} positions and the prompt takes 3. Received: an input of {room - 2} "
        "tokens and a candidate of 3",
    ):
        model.score(x, [[5, 6, 7]], task_ids=[1])


def test_after_a_task_was_added():
    model = make("gpt2")
    before = model.score(inputs("gpt2"), CANDIDATES, task_ids=TASK_IDS)
    model.add_task("d", from_="a")
    again = model.score(inputs("gpt2"), CANDIDATES, task_ids=TASK_IDS)
    np.testing.assert_allclose(again, before, rtol=1e-6)
    same = model.score(inputs("gpt2"), CANDIDATES, task_ids=["d", "c"])
    np.testing.assert_allclose(same, before, rtol=1e-6)


@only_eager
def test_after_a_task_was_removed_from_a_model_that_is_not_compiled(tmp_path):
    """As one is that was loaded for use alone: an encoder-decoder reads its prompts in a trace."""
    make("t5").save(tmp_path / "m.keras")
    model = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    before = model.score(inputs("t5"), CANDIDATES, task_ids=["b", "c"])
    model.remove_task("a")
    again = model.score(inputs("t5"), CANDIDATES, task_ids=["b", "c"])
    np.testing.assert_allclose(again, before, rtol=1e-6)


def test_task_ids_are_given_once():
    model = make("gpt2")
    calls = (
        lambda x, task_ids: model.generate(x, task_ids=task_ids, stop_token_ids=None),
        lambda x, task_ids: model.score(x, CANDIDATES, task_ids=task_ids),
    )
    for call in calls:
        with pytest.raises(ValueError, match="`task_ids` should be given once, in `inputs` or "):
            call({**inputs("gpt2"), "task_ids": [0, 1]}, [1, 0])


@only_eager
def test_strings():
    model = make("gpt2", causal_preprocessor())
    start, space = VOCABULARY["<|endoftext|>"], VOCABULARY["Ġ"]
    tokens = np.array([[start, 9, space, 2], [start, 3, 0, 0]])  # "ab c" and "d".
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    x = {"token_ids": tokens, "padding_mask": mask}
    labels, ids = [" a", "b", " cd"], [[space, 0], [1], [space, 2, 3]]
    expected = by_predict(model, x, ids, TASK_IDS)
    found = model.score(["ab c", "d"], labels, task_ids=TASK_IDS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    named = model.score({"text": ["ab c", "d"], "task_ids": ["a", "c"]}, ids)
    np.testing.assert_allclose(named, expected, rtol=1e-5)
    best = model.predict_labels(["ab c", "d"], labels, task_ids=TASK_IDS)
    assert best == [labels[i] for i in expected.argmax(axis=1)]
    own = [labels, labels[::-1]]
    assert model.predict_labels(["ab c", "d"], own, task_ids=TASK_IDS) == best
    # "ab" is one token in a text, and two where it is put together from "a" and "b".
    one, two = (model.score(*x, task_ids=0) for x in (("c", ["ab"]), ("ca", ["b"])))
    assert one.shape == (1, 1)
    assert abs(one - two) > 1e-4
    with pytest.raises(ValueError, match="`inputs` should be texts of at most 8 tokens .* longer"):
        model.score(["c" * 8], labels, task_ids=0)
    assert model.score(["c" * 7], labels, task_ids=0).shape == (1, 3)


@only_eager
def test_strings_of_an_encoder_decoder():
    model = make("bart", seq2seq_preprocessor())
    start, end = VOCABULARY["<s>"], VOCABULARY["</s>"]
    x = {
        "encoder_token_ids": np.array([[start, 9, 2, end], [start, 3, end, 0]]),
        "encoder_padding_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "decoder_token_ids": np.array([[end, start]] * 2),  # As BART's preprocessor starts it.
        "decoder_padding_mask": np.ones((2, 2), int),
    }
    expected = by_predict(model, x, [[0], [1, 2]], TASK_IDS)
    found = model.score(["abc", "d"], ["a", "bc"], task_ids=TASK_IDS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # The start of an answer, which the candidates go on with.
    texts = {"encoder_text": ["abc", "d"], "decoder_text": ["h", "h"]}
    longer = {**x, "decoder_token_ids": np.array([[end, start, 7]] * 2)}
    longer["decoder_padding_mask"] = np.ones((2, 3), int)
    expected = by_predict(model, longer, [[0], [1, 2]], TASK_IDS)
    found = model.score(texts, ["a", "bc"], task_ids=TASK_IDS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


CANDIDATES_REFUSED = {
    "none": ([], "`candidates` should be a list of strings or of lists of token ids, for all rows"),
    "no list": ("a", "`candidates` should be a list .* Received: candidates='a'"),
    "numbers": ([5, 6], r"`candidates` should be a list .* Received: candidates=\[5, 6\]"),
    "mixed": ([[5], "a"], "`candidates` should be a list of strings or of lists of token ids"),
    "without tokens": (
        [[5], []],
        r"`candidates` should have at least one token each. Received: candidates with \[\], which",
    ),
    "strings": (
        ["a"],
        "`candidates` should be lists of token ids where the model has no preprocessor to tokenize "
        "strings. Received: candidates with 'a'",
    ),
    "beyond the vocabulary": (
        [[5, tiny.VOCABULARY], [-1]],
        r"`candidates` should have token ids in \[0, 50\). Received: candidates with \[-1, 50\]",
    ),
    "beyond any array": (
        [[5, 2**70], [-(2**70)]],
        r"`candidates` should have token ids in \[0, 50\). Received: candidates with \[-1, 9",
    ),
    "True": ([[True]], "`candidates` should be a list of strings or of lists of token ids"),
    "of other rows": (
        [[[5], [6]]] * 3,
        "`candidates` should have one list per row, 2 of them, or be one list for all rows. "
        "Received: 3 lists",
    ),
    "of several numbers": (
        [[[5], [6]], [[7]]],
        r"`candidates` should have as many candidates for each row. Received: lists of lengths "
        r"\[2, 1\]",
    ),
    "a list without any": ([[[5]], []], "`candidates` should be a list of strings or of lists"),
}


@pytest.mark.parametrize("what", CANDIDATES_REFUSED)
def test_wrong_candidates(what):
    candidates, message = CANDIDATES_REFUSED[what]
    with pytest.raises(ValueError, match=message):
        make("gpt2").score(inputs("gpt2"), candidates, task_ids=TASK_IDS)


ROWS_REFUSED = {
    "no task": ({}, None, {}, "`task_ids` should be given"),
    "unknown task": ({}, [0, 3], {}, r"`task_ids` should lie in \[0, 3\): this model has 3 tasks"),
    "unknown name": ({}, "d", {}, "`task_ids` should name a task: one of"),
    "tasks of other rows": ({}, [0], {}, "`task_ids` should have one id per row: 2 of them"),
    "left padding": (
        {"padding_mask": np.array([[0, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]])},
        0,
        {},
        "`padding_mask` should be 1 at each row's tokens, then 0: rows are padded on the right",
    ),
    "beyond the vocabulary": (
        {"token_ids": np.where(IDS == 6, 50, IDS)},
        0,
        {},
        r"`token_ids` should have token ids in \[0, 50\). Received: token_ids with \[50\]",
    ),
    "another mean": (
        {},
        0,
        {"normalize": "max"},
        "`normalize` should be 'sum' or 'mean'. Received: normalize='max'",
    ),
}


@pytest.mark.parametrize("what", ROWS_REFUSED)
def test_wrong_rows(what):
    changes, task_ids, arguments, message = ROWS_REFUSED[what]
    with pytest.raises(ValueError, match=message):
        make("gpt2").score(
            {**inputs("gpt2"), **changes}, CANDIDATES, task_ids=task_ids, **arguments
        )


def test_text_that_cannot_be_scored():
    with pytest.raises(ValueError, match="`inputs` should be a dict .* no preprocessor. Received"):
        make("gpt2").score(["a"], [[5]], task_ids=0)
    model = make("gpt2", causal_preprocessor())
    with pytest.raises(ValueError, match="`candidates` should have at least one token each. .* ''"):
        model.score(["a"], ["b", ""], task_ids=0)
    with pytest.raises(ValueError, match="`inputs` should be a string or a list of strings"):
        model.score([], ["b"], task_ids=0)


def test_positions_of_ones_own_are_refused():
    from tests.families.configurations import FAMILIES

    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=3)
    model = keras_mpt.models.PromptTunedCausalLM(FAMILIES["Gemma 4"].build(), config)
    x = {**inputs("gpt2"), "position_ids": np.arange(8) + np.zeros((2, 1), int)}
    with pytest.raises(ValueError, match=r"`inputs` should leave out \['position_ids'\]"):
        model.score(x, [[5]])
