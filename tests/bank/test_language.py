"""Text under adapters that were trained apart: scored, answered in words, continued."""

import numpy as np
import pytest

import keras_mpt
from keras_mpt.splicing.prefix_cache import PrefixCache
from tests import tiny
from tests.bank.adapters import ROWS, backbone, config, models, own_inputs, randomized
from tests.decoding.language_models import causal_preprocessor, seq2seq_preprocessor
from tests.marks import IS_EAGER, only_torch, slow_on_tensorflow

CANDIDATES = [[5, 6], [7], [8, 9, 10]]
_KINDS = [
    ("gpt2", "CAUSAL_LM"),
    pytest.param(("llama", "CAUSAL_LM"), marks=only_torch),
    pytest.param(("t5", "SEQ_2_SEQ_LM"), marks=only_torch),
    pytest.param(("bart", "SEQ_2_SEQ_LM"), marks=only_torch),
]


@pytest.fixture(scope="module", params=_KINDS, ids=lambda kind: kind[0])
def served(request, tmp_path_factory):
    """Own models and a bank of them."""
    kind, task_type = request.param
    folder = tmp_path_factory.mktemp("bank")
    of = backbone(kind)
    made = models(of, task_type, folder)
    for model in made.values():
        model.set_sampler("greedy")
    return made, keras_mpt.PromptBank(of, folder, sampler="greedy"), tiny.inputs(of, rows=6)


@pytest.mark.parametrize(
    "rows",
    [ROWS, pytest.param(["a/0", "c", "a/1", "c", "a/0", "c"], marks=slow_on_tensorflow)],
    ids=["mixed", "one"],
)
def test_scores(served, rows):
    """Of prompts of several lengths, and of one, whose keys and values are kept."""
    made, bank, x = served
    found = bank.score({**x, "adapter": rows}, CANDIDATES)
    for i in range(len(rows)):
        model, own = own_inputs(made, x, rows, i)
        np.testing.assert_allclose(found[i], model.score(own, CANDIDATES)[0], atol=1e-5)


@only_torch
def test_scores_without_a_cache(served):
    made, bank, x = served
    found = bank.score({**x, "adapter": ROWS}, CANDIDATES, use_cache=False)
    np.testing.assert_allclose(found, bank.score({**x, "adapter": ROWS}, CANDIDATES), atol=1e-5)


def test_tokens(served):
    made, bank, x = served
    sides = [name for name in x if not name.startswith("encoder")]
    longer = {n: np.pad(v, ((0, 0), (0, 6))) if n in sides else v for n, v in x.items()}
    found = bank.generate({**longer, "adapter": ROWS}, stop_token_ids=None)
    for i in range(len(ROWS)):
        model, own = own_inputs(made, longer, ROWS, i)
        expected = model.generate(own, stop_token_ids=None)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name][i], value[0])


def test_a_replaced_adapter_s_keys_are_not_served(tmp_path):
    """Also under the number of another thread's call: the new numbers are another prompt."""
    of = backbone("gpt2")
    made = models(of, "CAUSAL_LM", tmp_path, "ac")
    bank = keras_mpt.PromptBank(of, tmp_path)
    x = tiny.inputs(of, rows=2)
    asked = {**x, "adapter": ["a/0", "a/0"]}
    before = bank.score(asked, CANDIDATES)
    bank.load("a", tmp_path / "c")
    after = bank.score({**x, "adapter": "a"}, CANDIDATES)
    np.testing.assert_allclose(after, made["c"].score(x, CANDIDATES), atol=1e-5)
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("keeps", [True, pytest.param(False, marks=slow_on_tensorflow)])
def test_nothing_is_compiled_anew(keeps, tmp_path, monkeypatch):
    """Another adapter in the place of one, and one more: as long, longer and shorter.

    Where keys are kept, after each of these ways was taken; else after any one call.
    """
    of = backbone("gpt2")
    made = models(of, "CAUSAL_LM", tmp_path)
    bank = keras_mpt.PromptBank(of, num_virtual_tokens=6, **({} if keeps else {"cache_bytes": 0}))
    x = tiny.inputs(of, rows=4)
    x["padding_mask"][:] = 1
    for name in "ab" if keeps else "a":
        bank.load(name, tmp_path / name)
    for rows in ("a/0", "b/0", ["a/0", "b/0"] * 2) if keeps else ("a/0",):
        bank.score({**x, "adapter": rows}, CANDIDATES)
    traced, real = [], PrefixCache.step

    def step(*args, **kwargs):
        traced.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(PrefixCache, "step", step)
    bank.load("c", tmp_path / "c")
    bank.load("b", tmp_path / "b")
    # Rows of several lengths are a width of their own, as ragged texts are.
    asked = ["c"] * 4, ["a/1"] * 4, ["c", "b/2"] * 2 if keeps else ["b/2"] * 4
    found = [bank.score({**x, "adapter": rows}, CANDIDATES) for rows in asked]
    monkeypatch.undo()
    assert bool(traced) == IS_EAGER  # PyTorch shows that calls are seen at all.
    for rows, scores in zip(asked, found, strict=True):
        for i in range(4):
            model, own = own_inputs(made, x, rows, i)
            np.testing.assert_allclose(scores[i], model.score(own, CANDIDATES)[0], atol=1e-5)


def _with_words(folder, of, preprocessor, task_type):
    words = {"a": {"task_0": ["a", "b"], "task_1": ["c", "d", "ef"]}, "c": ["g", "h"]}
    made = {}
    for seed, name in enumerate("ac"):
        given = config(name, task_type, label_words=words[name])
        model = keras_mpt.prompt_tune(of, given, preprocessor=preprocessor)
        made[name] = randomized(model, seed)
        made[name].save_adapter(folder / name)
    return made


@slow_on_tensorflow
@pytest.mark.parametrize("task_type", ["CAUSAL_LM", pytest.param("SEQ_2_SEQ_LM", marks=only_torch)])
def test_each_row_is_answered_in_its_own_words(task_type, tmp_path):
    is_causal = task_type == "CAUSAL_LM"
    of = backbone("gpt2" if is_causal else "bart")
    preprocessor = causal_preprocessor(16) if is_causal else seq2seq_preprocessor(8, 8)
    made = _with_words(tmp_path, of, preprocessor, task_type)
    bank = keras_mpt.PromptBank(of, tmp_path, preprocessor=preprocessor, sampler="greedy")
    texts, rows = ["cab", "fed", "bag", "ace"], ["a/1", "c", "a/0", "c"]
    labels, p = bank.predict_labels(texts, adapter=rows, return_probabilities=True)
    scores = bank.predict({"text": texts, "adapter": rows})
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        model, task = made[row[0]], ({"task_ids": [int(row[2:])]} if len(row) > 1 else {})
        own, own_p = model.predict_labels([text], **task, return_probabilities=True)
        assert labels[i] == own[0]
        np.testing.assert_allclose(p[i, : own_p.shape[1]], own_p[0], atol=1e-5)
        assert (p[i, own_p.shape[1] :] == 0).all()
        own = model.score([text], **task)[0]
        np.testing.assert_allclose(scores[i, : len(own)], own, atol=1e-5)
        if IS_EAGER:  # Elsewhere each length is compiled.
            model.set_sampler("greedy")
            new = model.generate([text], 8, **task)
            assert bank.generate([text], 8, adapter=row) == new
            own = model.predict_labels([text], **task, calibrate=True)
            assert bank.predict_labels([text], adapter=row, calibrate=True) == own
