"""Threads that ask one model, or models on one backbone, get what they would get alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.decoding.kept_prompts import KeptPrompts
from tests import tiny
from tests.decoding.language_models import inputs
from tests.marks import only_torch
from tests.soak.calls import ask, language_model, mixed_calls

THREADS = 4


@pytest.fixture(scope="module")
def model():
    return language_model()


def test_mixed_calls(model):
    assert mixed_calls(model, THREADS, 6, of=((0, 1), (1, 2), (2, 0))) == (0, 0)


def test_calls_while_another_model_on_the_backbone_trains(model):
    expected = ask(model, "score", (0, 1))
    other = keras_mpt.prompt_tune(model.backbone, model.config)
    x = {**inputs("gpt2"), "task_ids": [0, 2]}
    start = ops.convert_to_numpy(other.prompt.prompt_embeddings)
    with ThreadPoolExecutor(2) as pool:
        training = pool.submit(other.fit, x, np.full((2, 8), 7), epochs=5, verbose=0)
        scores = [pool.submit(ask, model, "score", (0, 1)) for _ in range(5)]
        for score in scores:
            np.testing.assert_allclose(score.result(), expected, rtol=1e-5, atol=1e-5)
        training.result()
    assert np.abs(ops.convert_to_numpy(other.prompt.prompt_embeddings) - start).max() > 0


@pytest.mark.parametrize("kind", ["gpt2", pytest.param("bart", marks=only_torch)])
def test_models_are_built_on_one_backbone(kind):
    backbone = tiny.backbone(kind)
    task_type = {"gpt2": "CAUSAL_LM", "bart": "SEQ_2_SEQ_LM"}[kind]
    config = keras_mpt.PromptTuningConfig(task_type=task_type, num_virtual_tokens=3)
    x = tiny.inputs(backbone)

    def build(_):
        return keras_mpt.prompt_tune(backbone, config)

    with ThreadPoolExecutor(THREADS) as pool:
        models = list(pool.map(build, range(5)))
    first, *others = models
    prompt = ops.convert_to_numpy(first.prompt.prompt_embeddings)
    expected = ops.convert_to_numpy(first(x))
    for other in others:
        other.prompt.prompt_embeddings.assign(prompt)
        np.testing.assert_allclose(ops.convert_to_numpy(other(x)), expected, rtol=1e-5, atol=1e-5)


@only_torch
def test_kept_prompts_are_asked_by_threads():
    """Ten tasks where three are kept: each call drops what others are about to use."""

    def compute(prompts):
        return [prompts * 2, prompts[:, 0]]

    kept = KeptPrompts(compute, lambda: ops.ones(3), max_bytes=3 * 5 * 16)
    prompts = np.random.default_rng(0).normal(size=(10, 4, 4)).astype("float32")

    def call(thread):
        rng = np.random.default_rng(thread)
        for _ in range(100):
            tasks = rng.integers(0, 10, 3)
            found, first = kept.get(tasks.tolist(), ops.convert_to_tensor(prompts[tasks]))
            np.testing.assert_array_equal(ops.convert_to_numpy(found), prompts[tasks] * 2)
            np.testing.assert_array_equal(ops.convert_to_numpy(first), prompts[tasks, 0])
            assert kept.nbytes <= kept.max_bytes and len(kept.tasks) <= 3
        return True

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(call, range(THREADS)))
