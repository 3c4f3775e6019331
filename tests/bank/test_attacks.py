"""What a bank must not answer, or must answer as the adapter's own model does, found by attack."""

import json
import os
import threading

import keras_hub
import numpy as np
import pytest

import keras_mpt
from keras_mpt.bank import prompt_bank
from tests import tiny
from tests.bank.adapters import (
    assert_equal_outputs,
    assert_equal_to_own_models,
    backbone,
    models,
    own_inputs,
)
from tests.marks import IS_EAGER

pytestmark = pytest.mark.skipif(not IS_EAGER, reason="no backend matters; PyTorch compiles nothing")


def rows_of(x, rows, kind=""):
    """The first rows of inputs, with no padding in them."""
    found = {name: value[:rows].copy() for name, value in x.items()}
    return {n: np.ones_like(v) if n.endswith("padding_mask") else v for n, v in found.items()}


@pytest.mark.parametrize("ask", ["score", "generate", "predict"])
def test_a_long_encoder_text_is_refused_not_cut(ask, tmp_path):
    of = backbone("bart")
    models(of, "SEQ_2_SEQ_LM", tmp_path, "bd")
    bank = keras_mpt.PromptBank(of, tmp_path, sampler="greedy")
    x = rows_of(tiny.inputs(of, rows=2, length=28), 2)
    short = {n: v[:, :8] if n.startswith("decoder") else v for n, v in x.items()}
    short["decoder_padding_mask"][:, 4:] = 0
    given = {**short, "adapter": ["d", "b/0"]}
    with pytest.raises(ValueError, match="`encoder_token_ids` .* at most 26 .*'b/task_0'.* 28 in"):
        if ask == "score":
            bank.score(given, [[5, 6], [7]])
        elif ask == "generate":
            bank.generate(given, stop_token_ids=None)
        else:
            bank.predict(given)


def test_a_decoder_s_text_beside_prompts_of_its_own_and_of_others(tmp_path):
    of = backbone("bart")
    configs = {"a": {"num_transformer_submodules": 1}}
    made = models(of, "SEQ_2_SEQ_LM", tmp_path, "ab", configs)
    bank = keras_mpt.PromptBank(of, tmp_path)
    x = rows_of(tiny.inputs(of, rows=2, length=28), 2)
    x |= {n: v[:, :6] for n, v in x.items() if n.startswith("encoder")}
    with pytest.raises(
        ValueError, match="`decoder_token_ids` .* at most 26 .*'b/task_0'.* in row 1"
    ):
        bank.predict({**x, "adapter": ["a/0", "b/0"]})
    # The one without a prompt there has all of the positions.
    found = bank.score({**x, "adapter": "a/0"}, [[5, 6], [7]])
    np.testing.assert_allclose(
        found, made["a"].score({**x, "task_ids": 0}, [[5, 6], [7]]), atol=1e-5
    )


def test_a_task_s_own_output_layer(tmp_path):
    """A second one of keras-hub's would have other weights."""
    of = keras_hub.models.EdRecBackbone(
        vocab_size=50,
        num_layers_enc=1,
        num_layers_dec=1,
        hidden_dim=16,
        intermediate_dim=32,
        num_heads=2,
    )
    task = keras_hub.models.EdRecSeq2SeqLM(backbone=of, preprocessor=None)
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=3, task_type="SEQ_2_SEQ_LM")
    model = keras_mpt.prompt_tune(task, config)
    model.save_adapter(tmp_path / "c")
    x = tiny.inputs(task.backbone, rows=2)
    bank = keras_mpt.PromptBank(task, tmp_path)
    for use_cache in (True, False):
        found = bank.score({**x, "adapter": "c"}, [[5, 6], [7]], use_cache=use_cache)
        np.testing.assert_allclose(found, model.score(x, [[5, 6], [7]]), atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "bart"])
def test_a_prompt_after_the_start_token(kind, tmp_path):
    """The rows' tokens come back, and no virtual one among them."""
    of = backbone(kind)
    task_type = "CAUSAL_LM" if kind == "gpt2" else "SEQ_2_SEQ_LM"
    configs = {"c": {"prompt_position": "after_start"}}
    made = models(of, task_type, tmp_path, "ac", configs)
    x = rows_of(tiny.inputs(of, rows=2), 2)
    last = "" if kind == "gpt2" else "decoder_"
    x[f"{last}padding_mask"][:, 3:] = 0
    bank = keras_mpt.PromptBank(of, tmp_path, sampler="greedy")
    found = bank.generate({**x, "adapter": ["c", "a/1"]}, stop_token_ids=None)
    for i, row in enumerate(["c", "a/1"]):
        model, own = own_inputs(made, x, ["c", "a/1"], i)
        model.set_sampler("greedy")
        expected = model.generate(own, stop_token_ids=None)
        np.testing.assert_array_equal(
            found[f"{last}token_ids"][i], expected[f"{last}token_ids"][0], err_msg=row
        )


@pytest.mark.parametrize("sampler", ["beam", "contrastive"])
def test_samplers_that_look_at_whole_rows(sampler, tmp_path):
    of = backbone("gpt2")
    made = models(of, "CAUSAL_LM", tmp_path)
    rows = ["a/0", "b/1", "c", "a/1", "d", "b/2"]
    x = tiny.inputs(of, rows=6)
    x = {n: np.pad(v, ((0, 0), (0, 6))) for n, v in x.items()}
    of_hub = keras_hub.samplers
    drawn = {"beam": of_hub.BeamSampler(3), "contrastive": of_hub.ContrastiveSampler(3, 0.4)}
    bank = keras_mpt.PromptBank(of, tmp_path, sampler=drawn[sampler])
    found = bank.generate({**x, "adapter": rows}, stop_token_ids=None)
    for i in range(6):
        model, own = own_inputs(made, x, rows, i)
        model.set_sampler(drawn[sampler])
        expected = model.generate(own, stop_token_ids=None)
        np.testing.assert_array_equal(found["token_ids"][i], expected["token_ids"][0])


def test_contrastive_search_among_virtual_tokens_is_refused(tmp_path):
    of = backbone("bart")
    models(of, "SEQ_2_SEQ_LM", tmp_path, "a")
    bank = keras_mpt.PromptBank(of, tmp_path, sampler=keras_hub.samplers.ContrastiveSampler(3, 0.4))
    with pytest.raises(ValueError, match="`sampler` should be another one .*ContrastiveSampler"):
        bank.generate({**tiny.inputs(of, rows=1), "adapter": "a/0"}, stop_token_ids=None)


@pytest.mark.parametrize("change", ["load", "drop"])
def test_a_read_that_ends_late_undoes_nothing(change, tmp_path, monkeypatch):
    of = backbone("plain")
    made = models(of, "SEQ_CLS", tmp_path / "served", "c")
    other = models(of, "SEQ_CLS", tmp_path / "other", "d")
    x = tiny.inputs(of, rows=2)
    bank = keras_mpt.PromptBank(of, tmp_path / "served")
    bank.predict({**x, "adapter": "c"})
    bank = keras_mpt.PromptBank(of, tmp_path / "served")
    real, begun, may_end = prompt_bank.read_adapter, threading.Event(), threading.Event()

    def slow(directory):
        if "served" in str(directory) and not begun.is_set():
            begun.set()
            assert may_end.wait(30)
        return real(directory)

    monkeypatch.setattr(prompt_bank, "read_adapter", slow)
    answers = []

    def ask():
        try:
            answers.append(bank.predict({**x, "adapter": "c"}))
        except ValueError as error:
            answers.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(30)
    bank.load("c", tmp_path / "other" / "d")
    if change == "drop":
        bank.drop("c")
    may_end.set()
    thread.join(30)
    if change == "drop":
        assert "'c' in row 0" in answers[0] and bank.names == []
        with pytest.raises(ValueError, match="'c' in row 0"):
            bank.predict({**x, "adapter": "c"})
    else:
        assert made and answers[0].shape == (2, 3)
        assert_equal_to_own_models(
            bank.predict({**x, "adapter": "c"}), {"d": other["d"]}, x, ["d"] * 2
        )


def test_what_was_refused_decides_nothing(tmp_path):
    of = backbone("gpt2")
    models(of, "CAUSAL_LM", tmp_path, "b")
    made = models(of, "FEATURE_EXTRACTION", tmp_path, "c")
    x = tiny.inputs(of, rows=2)
    size = made["c"].parameter_count() * 4
    bank = keras_mpt.PromptBank(of, max_bytes=size)
    with pytest.raises(ValueError, match="`max_bytes`"):
        bank.load("lm", tmp_path / "b")
    bank.load("c", tmp_path / "c")
    assert_equal_to_own_models(bank.predict({**x, "adapter": "c"}), made, x, ["c"] * 2)


def test_padding_that_only_ids_tell(tmp_path):
    """The row's first token stands for virtual ones: a padding id may be the largest there is."""
    for pad in (49, 1):
        of = keras_hub.models.ESMBackbone(
            vocabulary_size=50, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32,
            pad_token_id=pad,
        )  # fmt: skip
        made = models(of, "SEQ_CLS", tmp_path / str(pad), "a")
        x = {"token_ids": np.array([[2, 5, 6, pad, pad, pad], [0, pad, pad, pad, pad, pad]])}
        found = keras_mpt.PromptBank(of, tmp_path / str(pad)).predict({**x, "adapter": "a/1"})
        for i in range(2):
            model, own = own_inputs(made, x, ["a/1"] * 2, i)
            assert_equal_outputs(found[i], model.predict(own, verbose=0)[0])


def test_a_head_that_does_not_fit_its_tasks(tmp_path):
    of = backbone("plain")
    models(of, "SEQ_CLS", tmp_path, "ab")
    file = tmp_path / "b" / "keras_mpt_config.json"
    fields = json.loads(file.read_text())
    for wrong in ([9], [-1, 6, 4], [2.0, 3, 4], "abc", 5.0):
        file.write_text(json.dumps({**fields, "num_classes": wrong}))
        with pytest.raises(ValueError, match="`num_classes`"):
            keras_mpt.PromptBank(of).load("b", tmp_path / "b")


def test_names_of_tasks_and_of_rows(tmp_path, monkeypatch):
    of = backbone("plain")
    made = models(of, "SEQ_CLS", tmp_path, "ab", {"a": {"task_names": ["x/y", "1"]}})
    x = tiny.inputs(of, rows=3)
    size = max(sum(a.nbytes for a in m.get_weights()) for m in made.values())
    bank = keras_mpt.PromptBank(of, tmp_path, max_bytes=max(size, 2000))
    found = bank.predict({**x, "adapter": ["a/x/y", "b/0", "a/0"]})
    np.testing.assert_allclose(
        bank.predict({**x, "adapter": np.array([b"a/x/y", b"b/task_0", b"a/x/y"])}), found
    )
    with pytest.raises(ValueError, match="one per row: 3 of them. Received: 2 names"):
        bank.predict({**x, "adapter": ["a/1", "a/1"]})
    monkeypatch.chdir(tmp_path)
    bank = keras_mpt.PromptBank(of, max_bytes=max(size, 2000))
    bank.load("b", "b")
    bank.load("a", "a")
    os.chdir("/")
    np.testing.assert_allclose(bank.predict({**x, "adapter": ["a/x/y", "b/0", "a/0"]}), found)
    for call in (lambda: bank.load("q", None), lambda: keras_mpt.PromptBank(of, 3)):
        with pytest.raises(ValueError, match="`directory` should be a path"):
            call()
    with pytest.raises(ValueError, match="`truncation_sides` should be `truncation_side`"):
        keras_mpt.PromptBank(of, truncation_sides="left")


def test_label_words_without_a_preprocessor(tmp_path):
    """Tokens need none: only words do."""
    from tests.decoding.language_models import causal_preprocessor

    of = backbone("gpt2")
    words = {"label_words": ["a", "b"]}
    made = models(of, "CAUSAL_LM", tmp_path, "c", {"c": words}, preprocessor=causal_preprocessor())
    x = tiny.inputs(of, rows=2)
    bank = keras_mpt.PromptBank(of, tmp_path)
    assert_equal_to_own_models(bank.predict({**x, "adapter": "c"}), made, x, ["c"] * 2)
