"""Similarity of tasks and of prompts, against NumPy in float64 and worked by hand."""

import keras
import numpy as np
import pytest

import keras_mpt
from keras_mpt.analysis import prompt_similarity, task_similarity
from keras_mpt.prompts import cosines
from tests import tiny
from tests.analysis import models
from tests.marks import only_eager


def cosine(a, b):
    """Of two vectors."""
    a, b = np.ravel(a), np.ravel(b)
    return a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.fixture(scope="module")
def model():
    """A model that no test changes."""
    return models.randomized(models.make())


def test_cosines_by_hand():
    found = cosines.cosines([[3, 4], [0, 0], [1, 0]], [[4, 3], [-3, -4]])
    expected = [[24 / 25, -1], [np.nan, np.nan], [4 / 5, -3 / 5]]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_cosines_of_the_same_vector_are_not_above_one():
    vectors = np.random.default_rng(0).normal(size=(50, 7))
    assert cosines.cosines(vectors, vectors).max() == 1


@pytest.mark.parametrize(("task_init", "start"), [("ones", 1), ("normal", 0)])
def test_factors_in_numpy(task_init, start):
    model = models.randomized(models.make(task_init=task_init))
    _, cols, rows = models.weights(model)
    changes = [c @ r - start for c, r in zip(cols, rows, strict=True)]
    names, found = task_similarity(model)
    assert names == models.NAMES
    np.testing.assert_allclose(found, [[cosine(a, b) for b in changes] for a in changes], rtol=1e-9)
    assert np.ptp(found) > 0.05


def test_prompts_in_numpy(model):
    shared, cols, rows = models.weights(model)
    means = [(shared * (c @ r)).mean(axis=0) for c, r in zip(cols, rows, strict=True)]
    names, found = task_similarity(model, of="prompt")
    assert names == models.NAMES
    np.testing.assert_allclose(found, [[cosine(a, b) for b in means] for a in means], rtol=1e-9)


def test_at_the_start_nothing_changed_and_prompts_are_one():
    model = models.make()
    assert np.isnan(task_similarity(model)[1]).all()
    np.testing.assert_allclose(task_similarity(model, of="prompt")[1], 1, rtol=1e-12)


def test_a_task_that_did_not_change_is_nan_alone():
    model = models.make()
    cols = model.prompt.get_peft_state_dict()["prefix_task_cols"]
    cols[1] *= np.arange(1, 5)[:, None]
    cols[2] *= -1
    model.prompt.prefix_task_cols.assign(cols)
    found = task_similarity(model)[1]
    # Task 1's W − 1 is 0, 1, 2, 3 along the tokens, task 2's is −2 everywhere.
    expected = -(1 + 2 + 3) / np.sqrt((1 + 4 + 9) * 4)
    np.testing.assert_allclose(
        found, [[np.nan] * 3, [np.nan, 1, expected], [np.nan, expected, 1]], rtol=1e-6
    )


def test_given_prompts_in_numpy(model):
    prompts = np.random.default_rng(1).normal(size=(2, 7, tiny.WIDTH))
    shared, cols, rows = models.weights(model)
    means = [(shared * (c @ r)).mean(axis=0) for c, r in zip(cols, rows, strict=True)]
    expected = [[cosine(p.mean(axis=0), m) for m in means] for p in prompts]
    np.testing.assert_allclose(prompt_similarity(model, prompts), expected, rtol=1e-9)


def test_a_task_s_own_prompt_is_nearest_to_it(model):
    found = prompt_similarity(model, model.prompt([0, 1, 2]))
    np.testing.assert_allclose(np.diag(found), 1, rtol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), [0, 1, 2])


@only_eager
def test_an_encoder_decoder_s_two_prompts_are_one_task_s():
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=2, num_tasks=2
    )
    model = models.randomized(keras_mpt.prompt_tune(tiny.backbone("t5"), config))
    _, cols, rows = models.weights(model)
    expected = cosine(cols[0] @ rows[0] - 1, cols[1] @ rows[1] - 1)
    names, found = task_similarity(model)
    assert names == ["task_0", "task_1"] and cols.shape[1] == 4
    np.testing.assert_allclose(found[0, 1], expected, rtol=1e-9)


def test_bad_input(model):
    plain = keras_mpt.prompt_tune(
        tiny.backbone("plain"), keras_mpt.PromptTuningConfig(num_virtual_tokens=2)
    )
    width = tiny.WIDTH
    for call, error in (
        (
            lambda: task_similarity(plain),
            "`model` should have tasks, those of a MultitaskPromptTuningConfig. Received: a model "
            "with a PromptTuningConfig",
        ),
        (
            lambda: prompt_similarity(keras.Sequential(), np.ones((1, 2, width))),
            "`model` should be a prompt-tuned model, such as `prompt_tune` makes. Received: a "
            "Sequential",
        ),
        (
            lambda: task_similarity(model, of="cols"),
            "`of` should be 'factors' or 'prompt'. Received: of='cols'",
        ),
        *(
            (
                lambda shape=shape: prompt_similarity(model, np.ones(shape)),
                f"`prompts` should have shape (N, num_virtual_tokens, {width}). Received: prompts "
                f"of shape {shape}",
            )
            for shape in ((4, width), (1, 4, width + 1), (1, 0, width))
        ),
        (
            lambda: prompt_similarity(model, np.full((1, 4, width), np.nan)),
            "`prompts` should be finite. Received: prompts with NaN or infinity",
        ),
    ):
        with pytest.raises(ValueError) as raised:
            call()
        assert str(raised.value) == error
