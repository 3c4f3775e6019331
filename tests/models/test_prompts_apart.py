"""Rows that attend to their prompt where all have it, against rows with a copy of it each."""

import dataclasses
import inspect
import logging

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.splicing import apart
from keras_mpt.splicing.prefix_cache import PrefixCache
from tests import tiny
from tests.families.configurations import FAMILIES, VOCABULARY
from tests.families.measure import move_weights
from tests.marks import IS_EAGER, slow_on_jax
from tests.models.test_shared_prompts import compiled

BACKEND = keras.backend.backend()
LENGTH = 3
# Grouped queries; a window and a norm of queries and keys; a cache of pairs; learned positions.
EXACT = ["GPT-2", "Llama", "Gemma", "Gemma 3", "Gemma 4", "Mistral", "Mixtral", "OPT", "Phi-3"]
EXACT += ["Qwen 2", "Qwen 3"]
# ALiBi, sinks, scores that are capped; and blocks that do not say what they hand on.
OTHERS = ["BLOOM", "GPT-OSS", "Gemma 2", "SmolLM 3"]


def opened(name, window=64, **instead):
    """A family's tiny backbone without dropout, and with a window of so many positions."""
    family = FAMILIES[name]
    takes = inspect.signature(getattr(keras_hub.models, family.backbone)).parameters
    arguments = {**family.arguments, **({"dropout": 0.0} if "dropout" in takes else {}), **instead}
    arguments |= {n: window for n in arguments if n in ("sliding_window", "sliding_window_size")}
    backbone = dataclasses.replace(family, arguments=arguments).build()
    move_weights(backbone)
    return backbone


@pytest.fixture
def counted(monkeypatch):
    """A list that gets an entry for each layer that reads prompts apart."""
    calls, after = [], PrefixCache._after

    def counting(self, *args):
        calls.append(True)
        return after(self, *args)

    monkeypatch.setattr(PrefixCache, "_after", counting)
    return calls


def short_ones_too(monkeypatch, always=True):
    monkeypatch.setattr(apart, "LONG", 1 if always else 10**9)
    monkeypatch.setattr(apart, "SAVED", 0)


def make(backbone, num_tasks=3, **kwargs):
    """A model of so many tasks, always with the same prompts."""
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=LENGTH, num_tasks=num_tasks)
    model = keras_mpt.models.PromptTunedCausalLM(backbone, config, share_prompts=True, **kwargs)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def data(num_tasks=3):
    """Rows padded on the right, on the left and in their midst."""
    ids = np.random.default_rng(1).integers(2, VOCABULARY, (5, 6)).astype("int32")
    mask = [[1] * 6, [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0]]
    tasks = np.array([0, 2, 2, 0, 2]) % num_tasks
    return {"token_ids": ids, "padding_mask": np.array(mask), "task_ids": tasks}


def step(model):
    """Logits, the loss, and what a step of plain gradient descent makes: that shows gradients."""
    x, weights = data(model.config.num_tasks), model.get_weights()
    logits = ops.convert_to_numpy(model(x))
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    loss = model.train_on_batch(x, np.roll(x["token_ids"], -1, 1))
    trained = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    model.set_weights(weights)  # Experts' balance is the backbone's.
    return [logits, np.array(loss[0]), *trained]


@pytest.mark.parametrize(
    ("name", "num_tasks"), [("Llama", 1), *((n, 3) for n in EXACT)] if IS_EAGER else [("Llama", 3)]
)
def test_logits_losses_and_gradients_are_the_same(name, num_tasks, monkeypatch, counted):
    backbone, found = opened(name), []
    for always in (True, False):
        short_ones_too(monkeypatch, always)
        counted.clear()
        found.append(step(make(backbone, num_tasks)))
        assert bool(counted) is always
    for value, other in zip(*found, strict=True):
        assert np.abs(value - other).max() <= 1e-5 * max(np.abs(other).max(), 1e-3)


@pytest.mark.skipif(not IS_EAGER, reason="what a block computes is the same on all")
@pytest.mark.parametrize("name", OTHERS)
def test_blocks_that_compute_something_else_get_copies(name, monkeypatch, counted):
    short_ones_too(monkeypatch)
    model = make(opened(name))
    model(data())
    assert model.prefix_cache.splits == [] and not counted


@pytest.mark.skipif(not IS_EAGER, reason="it is caught on all")
def test_blocks_that_fail_when_asked_get_copies(monkeypatch, counted):
    short_ones_too(monkeypatch)
    of_others = "keras_mpt.splicing.prefix_cache.split_layers"
    monkeypatch.setattr(of_others, lambda *args: tiny.backbone("no such family"))
    make(opened("Llama"))(data())
    assert not counted


@pytest.mark.skipif(not IS_EAGER, reason="windows are the same on all")
def test_a_window_that_the_prompt_does_not_fit_into_gets_copies(monkeypatch, counted):
    short_ones_too(monkeypatch)
    # Prompt and text have 9 positions.
    for window, fits in ((9, True), (8, False)):
        model = make(opened("Mistral", window))
        counted.clear()
        found = ops.convert_to_numpy(model(data()))
        assert bool(counted) is fits
        short_ones_too(monkeypatch, always=False)
        np.testing.assert_allclose(found, ops.convert_to_numpy(model(data())), atol=1e-5)
        short_ones_too(monkeypatch)


@pytest.mark.skipif(not IS_EAGER, reason="dropout is asked for before anything runs")
def test_attention_that_drops_out_gets_copies_in_training(monkeypatch, counted):
    short_ones_too(monkeypatch)
    model = make(tiny.backbone("gpt2", dropout=0.3))
    x = data()
    model(x, training=True)
    assert not counted
    model(x)
    assert counted


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch runs eagerly: wrong ids are an error there")
def test_an_unknown_task_is_nan_in_its_row_alone(monkeypatch, counted):
    short_ones_too(monkeypatch)
    model = make(opened("GPT-2"))
    x = {name: ops.convert_to_tensor(v, "int32") for name, v in data().items()}
    wanted = ops.convert_to_numpy(model(x))
    x["task_ids"] = ops.convert_to_tensor([0, 7, 2, 0, 2], "int32")
    counted.clear()
    found = ops.convert_to_numpy(compiled(model)(x))
    assert counted and np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2, 3, 4]], wanted[[0, 2, 3, 4]], atol=1e-5)


def told(model, sampler):
    """Tokens that continue rows of several lengths, and scores of words after them."""
    model.compile(sampler=sampler() if callable(sampler) else sampler)
    ids = np.random.default_rng(1).integers(2, VOCABULARY, (5, 9)).astype("int32")
    x = {"token_ids": ids, "padding_mask": np.arange(9) < np.array([[3], [4], [3], [5], [4]])}
    tasks = np.array([0, 2, 2, 0, 2]) % model.config.num_tasks
    made = model.generate(x, task_ids=tasks, stop_token_ids=None)["token_ids"]
    words = [[5, 6], [7], [8, 9, 3]]
    return made, model.score(x, words, task_ids=tasks)


def drawing():
    return keras_hub.samplers.TopKSampler(5, seed=3)


GENERATED = [("Llama", "greedy", 3)]
if IS_EAGER:
    GENERATED += [("GPT-2", drawing, 1), ("Gemma 3", "greedy", 20), ("Llama", "beam", 3)]


@slow_on_jax
@pytest.mark.parametrize(("name", "sampler", "num_tasks"), GENERATED)
def test_tokens_and_scores_are_the_same(name, sampler, num_tasks, monkeypatch, counted, caplog):
    backbone, found = opened(name), []
    for always in (True, False):
        short_ones_too(monkeypatch, always)
        counted.clear()
        with caplog.at_level(logging.WARNING, logger="keras_mpt"):
            found.append(told(make(backbone, num_tasks), sampler))
        assert bool(counted) is always
    # On PyTorch each step could be replayed.
    assert not [r for r in caplog.records if r.name.startswith("keras_mpt")]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-5)


def test_only_long_prompts_that_rows_share_are_read_apart():
    saved = apart.SAVED
    assert not apart.saves_time(apart.LONG - 1, saved, 1)
    assert apart.saves_time(apart.LONG, saved // apart.LONG + 4, 4)
    assert not apart.saves_time(apart.LONG, saved // apart.LONG + 3, 4)
    assert not apart.saves_time(10**6, 4, 4)  # Each row has a prompt of its own.
    assert apart.saves_time(apart.LONG, None, 4)  # Not known before it runs.
