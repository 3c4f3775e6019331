"""What a bank keeps, forgets, reads on demand and refuses; threads; and nothing compiled anew."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import keras_hub
import numpy as np
import pytest

import keras_mpt
from keras_mpt.splicing.virtual_ids import VirtualIds
from tests import tiny
from tests.bank.adapters import ROWS, assert_equal_to_own_models, backbone, models
from tests.marks import IS_EAGER, only_torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def of():
    return backbone("plain")


@pytest.fixture(scope="module")
def made(of, folder):
    return models(of, "SEQ_CLS", folder)


@pytest.fixture(scope="module")
def x(of):
    return tiny.inputs(of, rows=len(ROWS))


def test_nothing_is_compiled_anew(made, of, folder, x, tmp_path, monkeypatch):
    """Whatever is loaded, replaced, dropped, read again or of another length or rank."""
    shutil.copytree(folder / "a", tmp_path / "a")
    bank = keras_mpt.PromptBank(of, tmp_path, num_virtual_tokens=6)
    ask = {**x, "adapter": ["a/0", "a/1"] * 3}
    bank.predict(ask)
    traced = []
    real = VirtualIds.embedded
    monkeypatch.setattr(VirtualIds, "embedded", lambda *args: traced.append(1) or real(*args))
    for name in "bcd":
        bank.load(name, folder / name)
        assert_equal_to_own_models(
            bank.predict({**x, "adapter": ROWS[:1] * 5 + [{"b": "b/2"}.get(name, name)]}),
            made,
            x,
            ROWS[:1] * 5 + [{"b": "b/2"}.get(name, name)],
        )
    assert_equal_to_own_models(bank.predict({**x, "adapter": ROWS}), made, x, ROWS)
    bank.load("a", folder / "c")
    bank.drop("b")
    rows = ["a", "d"] * 3
    own = {"a": made["c"], "d": made["d"]}
    assert_equal_to_own_models(bank.predict({**x, "adapter": rows}), own, x, rows)
    # PyTorch compiles nothing: it is called each time, which shows that calls are seen at all.
    assert len(traced) == (5 if IS_EAGER else 0)


@only_torch
def test_those_asked_for_longest_ago_leave(made, of, folder, x):
    one = {name: keras_mpt.PromptBank(of, folder) for name in "abcd"}
    for name, bank in one.items():
        bank.load(name, folder / name)
    sizes = {name: bank.nbytes for name, bank in one.items()}
    bank = keras_mpt.PromptBank(of, folder, max_bytes=sizes["a"] + sizes["b"] + sizes["c"])
    for name in "abc":
        bank.load(name, folder / name)
    assert bank.names == ["a", "b", "c"] and bank.nbytes == sum(sizes[n] for n in "abc")
    bank.predict({**x, "adapter": "a/0"})
    bank.load("d", folder / "d")
    assert bank.names == ["c", "a", "d"]
    # A batch that needs all of them is answered all the same.
    assert_equal_to_own_models(bank.predict({**x, "adapter": ROWS}), made, x, ROWS)
    assert bank.nbytes <= sizes["a"] + sizes["b"] + sizes["c"]
    with pytest.raises(ValueError, match=rf"`max_bytes` should be at least {sizes['b']}.*=100 for"):
        keras_mpt.PromptBank(of, max_bytes=100).load("b", folder / "b")


@only_torch
def test_threads(made, of, folder, x):
    """They load, replace, drop and ask at once; each answer is of one adapter's, whole."""
    bank = keras_mpt.PromptBank(of, folder, max_bytes=5000)
    expected = {name: bank.predict({**x, "adapter": name}) for name in ("a/0", "b/1", "c", "d")}
    other = keras_mpt.PromptBank(of)
    other.load("x", folder / "a")
    first = other.predict({**x, "adapter": "x/0"})

    def call(thread):
        rng = np.random.default_rng(thread)
        for _ in range(15):
            name = list(expected)[rng.integers(4)]
            if thread == 0:
                bank.load("x", folder / ("a" if rng.integers(2) else "b"))
            elif thread == 1:
                found = bank.predict({**x, "adapter": "x/0"})
                matches = [
                    np.abs(found[:, :2] - w[:, :2]).max() < 1e-5
                    for w in (first, bank.predict({**x, "adapter": "b/0"}))
                ]
                assert any(matches)
            else:
                found = bank.predict({**x, "adapter": name})
                np.testing.assert_allclose(found, expected[name], atol=1e-6)
        return True

    bank.load("x", folder / "a")
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(4)))


def test_an_unknown_name_is_told_with_its_row(made, of, folder, x):
    bank = keras_mpt.PromptBank(of, folder)
    bank.load("a", folder / "a")
    for wrong, message in [
        ("e", r"'e' in row 2; the bank has \['a'\] in memory"),
        ("a/7", r"'a/7' in row 2; 'a' has the tasks \['task_0', 'task_1'\]"),
        ("a", r"'a' in row 2, which has several tasks: name one, as 'a/task_0'"),
        ("../a", r"'\.\./a' in row 2"),
        (None, "None in row 2"),
        (3, "3 in row 2"),
    ]:
        rows = ["a/0", "a/1", wrong, "a/0", "a/0", "a/0"]
        with pytest.raises(ValueError, match=f"`adapter` should name an adapter.*{message}"):
            bank.predict({**x, "adapter": rows})
    for given in ({}, {"adapter": []}, {"adapter": None}):
        with pytest.raises(ValueError, match="`adapter` should be"):
            bank.predict({**x, **given})
    with pytest.raises(ValueError, match="`task_ids` should be left out"):
        bank.predict({**x, "adapter": "a/0", "task_ids": [0] * 6})
    with pytest.raises(ValueError, match="`adapter` should be given once"):
        bank.predict({**x, "adapter": "a/0"}, adapter="a/1")
    with pytest.raises(
        ValueError, match="`adapter` should be one name, or one per row: 6 of them. Received: 2"
    ):
        bank.predict({**x, "adapter": ["a/0", "a/1"]})
    with pytest.raises(ValueError, match="`name` should be an adapter's. Received: name='e'"):
        bank.drop("e")
    bank.drop("a")
    with pytest.raises(ValueError, match="'a/0' in row 0"):
        bank.predict({**x, "adapter": "a/0"})


@only_torch
def test_a_broken_directory_while_serving(made, of, folder, x, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "b" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    (tmp_path / "d" / "adapter_config.json").write_text("{")
    bank = keras_mpt.PromptBank(of, tmp_path)
    for name in ("b/0", "d"):
        with pytest.raises(ValueError, match=f"adapter that can be read.*'{name[0]}' in row 1"):
            bank.predict({**x, "adapter": ["c", name, "c", "c", "c", "c"]})
    # Others go on; and what was there stays where its replacement is broken.
    rows = ["a/0", "c"] * 3
    assert_equal_to_own_models(bank.predict({**x, "adapter": rows}), made, x, rows)
    with pytest.raises(ValueError, match="adapter_config.json"):
        bank.load("c", tmp_path / "d")
    assert_equal_to_own_models(bank.predict({**x, "adapter": rows}), made, x, rows)
    # Mended, it is read.
    shutil.copytree(folder / "d", tmp_path / "d", dirs_exist_ok=True)
    rows = ["d", "c"] * 3
    assert_equal_to_own_models(bank.predict({**x, "adapter": rows}), made, x, rows)


@only_torch
def test_adapters_that_do_not_fit(made, of, folder, tmp_path):
    bank = keras_mpt.PromptBank(of, folder)
    models(tiny.backbone("bert"), "SEQ_CLS", tmp_path / "bert", "a")
    models(tiny.backbone("plain"), "SEQ_CLS", tmp_path / "plain", "a")
    models(of, "TOKEN_CLS", tmp_path / "tokens", "a")
    with pytest.raises(ValueError, match="backbone should be the one .*a BertBackbone"):
        bank.load("e", tmp_path / "bert" / "a")
    with pytest.raises(ValueError, match="backbone should be the one .* with other weights"):
        bank.load("e", tmp_path / "plain" / "a")
    bank.load("a", folder / "a")
    with pytest.raises(ValueError, match="`task_type` .* 'SEQ_CLS'. Received: task_type='TOKEN_C"):
        bank.load("e", tmp_path / "tokens" / "a")
    narrow = keras_hub.models.BertBackbone(
        vocabulary_size=50, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
    )
    with pytest.raises(ValueError, match="`token_dim` of an adapter should be 8, .*token_dim=16"):
        keras_mpt.PromptBank(narrow).load("e", tmp_path / "bert" / "a")
    short = tiny.backbone("bert")
    models(short, "SEQ_CLS", tmp_path / "long", "a", {"a": {"num_virtual_tokens": 20}})
    few = keras_hub.models.BertBackbone(
        vocabulary_size=50, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=16,
        max_sequence_length=12,
    )  # fmt: skip
    with pytest.raises(ValueError, match="`num_virtual_tokens` .* at most 11.*=20"):
        keras_mpt.PromptBank(few).load("e", tmp_path / "long" / "a")


@only_torch
def test_arguments(of, folder, x):
    bank = keras_mpt.PromptBank
    with pytest.raises(ValueError, match="`directory` should be a folder"):
        bank(of, folder / "nothing")
    for name in ("max_bytes", "num_virtual_tokens"):
        with pytest.raises(ValueError, match=f"`{name}` should be a positive integer"):
            bank(of, **{name: 0})
    with pytest.raises(ValueError, match="`cache_bytes` should be an integer, 0 or more"):
        bank(of, cache_bytes=-1)
    with pytest.raises(ValueError, match="`base` should be a keras-hub Backbone"):
        bank("bert")
    with pytest.raises(ValueError, match="`task_type` should be one of"):
        bank(of, task_type="SEQ")
    with pytest.raises(ValueError, match="`sampler` should be"):
        bank(of, sampler="greedily")
    with pytest.raises(ValueError, match="`name` should be a word without a slash"):
        bank(of).load("a/b", folder / "a")
    with pytest.raises(ValueError, match="`adapter` should name .* in memory"):
        bank(of).predict({**x, "adapter": "a"})
    with pytest.raises(ValueError, match="`batch_size` should be a positive"):
        bank(of, folder).predict({**x, "adapter": "c"}, batch_size=0)
    with pytest.raises(ValueError, match="`task_type` of the bank should be a language model's"):
        bank(of, folder).generate(x, adapter="c")
    with pytest.raises(ValueError, match="`task_type` of the bank should be a language model's"):
        bank(of, folder).score(x, [[3]], adapter="c")
    with pytest.raises(ValueError, match="`candidates` should be left out"):
        bank(of, folder).predict_labels(x, [[3]], adapter="c")
    gpt2 = keras_hub.models.GPT2CausalLM(tiny.backbone("gpt2"), preprocessor=None)
    with pytest.raises(ValueError, match="`task_type` should be 'CAUSAL_LM' or None"):
        bank(gpt2, task_type="SEQ_CLS")


@only_torch
def test_labels_by_their_names(of, tmp_path):
    names = {"task_0": ["bad", "good"]}
    configs = {"a": {"label_names": names}}
    made = models(of, "SEQ_CLS", tmp_path, "ac", configs)
    x = tiny.inputs(of, rows=3)
    labels, p = keras_mpt.PromptBank(of, tmp_path).predict_labels(
        {**x, "adapter": ["a/task_0", "a/task_1", "c"]}, return_probabilities=True
    )
    for i, (name, task) in enumerate([("a", 0), ("a", 1), ("c", None)]):
        own = {key: value[i : i + 1] for key, value in x.items()}
        given = {} if task is None else {"task_ids": [task]}
        label, own_p = made[name].predict_labels(own, **given, return_probabilities=True)
        assert labels[i] == label[0]
        np.testing.assert_allclose(p[i, : own_p.shape[1]], own_p[0], atol=1e-6)
        assert (p[i, own_p.shape[1] :] == 0).all()


@only_torch
def test_adapters_of_peft(tmp_path):
    """Read by the bank, as by `load_adapter`, whose logits are PEFT's."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    of = keras_mpt.backbone_from_pretrained(tmp_path / "base")
    expected = []
    x = tiny.inputs(of, rows=2)
    import torch

    for length in (3, 5):
        base = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")
        model = peft.get_peft_model(
            base,
            peft.MultitaskPromptTuningConfig(
                task_type="CAUSAL_LM", num_virtual_tokens=length, num_tasks=2
            ),
        )
        for weight in model.prompt_encoder.parameters():
            torch.nn.init.normal_(weight)
        model.save_pretrained(tmp_path / "bank" / f"of_{length}")
        row = len(expected)
        ids, mask = (torch.tensor(x[n][row : row + 1]) for n in ("token_ids", "padding_mask"))
        with torch.no_grad():
            logits = model(ids, attention_mask=mask, task_ids=torch.tensor([1])).logits
        expected.append(logits[0, length:].numpy())
    bank = keras_mpt.PromptBank(of, tmp_path / "bank")
    found = bank.predict({**x, "adapter": ["of_3/1", "of_5/1"]})
    for row in range(2):
        seen = x["padding_mask"][row] != 0
        np.testing.assert_allclose(found[row][seen], expected[row][seen], atol=1e-5)
