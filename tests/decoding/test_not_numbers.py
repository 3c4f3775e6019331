"""No answer is made of logits that are no numbers."""

import keras_hub
import numpy as np
import pytest
from keras import ops

from keras_mpt.decoding.candidates import as_candidates
from keras_mpt.decoding.watched import Watched, watching
from keras_mpt.models import best_spans
from tests.decoding.language_models import generated, inputs, make
from tests.marks import only_torch

samplers = keras_hub.samplers
SAMPLERS = {
    "greedy": samplers.GreedySampler(),
    "random": samplers.RandomSampler(seed=0),
    "top_k": samplers.TopKSampler(3, seed=0),
    "top_p": samplers.TopPSampler(0.5, seed=0),
    "beam": samplers.BeamSampler(num_beams=2),
    "contrastive": samplers.ContrastiveSampler(k=2, alpha=0.5),
}
ROW_1 = "logits should be finite.* in 1 of 2 rows, the first of them row 1"


@pytest.fixture(scope="module")
def models():
    """Language models whose third task has NaN for a factor."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = make(kind)
            rows = np.array(ops.convert_to_numpy(made[kind].prompt.prefix_task_rows))
            rows[2, 0, 3] = np.nan
            made[kind].prompt.prefix_task_rows.assign(rows)
        return made[kind]

    return get


@pytest.mark.parametrize(
    ("kind", "sampler", "use_cache"),
    [
        ("gpt2", "beam", True),
        pytest.param("gpt2", "greedy", False, marks=only_torch),
        pytest.param("bart", "beam", True, marks=only_torch),
        *(
            pytest.param("gpt2", name, True, marks=only_torch)
            for name in SAMPLERS
            if name != "beam"
        ),
    ],
)
def test_generate_answers_from_numbers_alone(models, kind, sampler, use_cache):
    model, arguments = models(kind), {"stop_token_ids": None, "use_cache": use_cache}
    model.set_sampler(SAMPLERS[sampler])
    with pytest.raises(ValueError, match=ROW_1):
        model.generate(inputs(kind), task_ids=[0, 2], **arguments)
    # The same compiled function answers where there are only numbers.
    assert generated(model.generate(inputs(kind), task_ids=[0, 1], **arguments)).shape == (2, 8)


@pytest.mark.parametrize("use_cache", [True, pytest.param(False, marks=only_torch)])
def test_score_and_labels(models, use_cache):
    model = models("gpt2")
    for act in (model.score, model.predict_labels):
        with pytest.raises(ValueError, match=ROW_1):
            act(inputs("gpt2"), [[3], [4, 5]], task_ids=[0, 2], use_cache=use_cache)
        act(inputs("gpt2"), [[3], [4, 5]], task_ids=[0, 1], use_cache=use_cache)


def test_which_logits_are_right():
    inf, nan = np.inf, np.nan
    logits = np.array(
        [[1, 2, 3], [-inf, 2, -inf], [-inf, -inf, -inf], [1, inf, 0], [nan, 5, 1], [7, 5, nan]],
        "float32",
    )

    def next_logits(token_ids, cache, index):
        return ops.convert_to_tensor(logits), "states", cache

    seen = Watched("cache", ops.convert_to_tensor(np.array([1, 1, 1, 1, 1, 0], "int32")))
    found, states, after = watching(next_logits)(None, seen, None)
    assert (states, after.cache) == ("states", "cache")
    np.testing.assert_array_equal(ops.convert_to_numpy(after.is_right), [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(ops.convert_to_numpy(found)[:2], logits[:2])
    assert not ops.convert_to_numpy(found)[2:].any()


@only_torch
def test_a_row_needs_a_candidate_that_can_be():
    candidates = as_candidates([[1], [2]], None, 10)
    assert candidates.best(np.array([[-np.inf, -3.0], [-1.0, -2.0]])).tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"probability above 0.*in 1 rows, the first.* row 1"):
        candidates.best(np.array([[-np.inf, -3.0], [-np.inf, -np.inf]]))


@only_torch
def test_spans_of_numbers():
    logits = np.zeros((3, 2, 4), "float32")
    logits[0, :, 1] = 1
    logits[1, 0, 2] = -np.inf
    assert best_spans(logits).tolist()[0] == [1, 1]
    for place, value in (((1, 0, 3), np.nan), ((1, 1, 0), np.inf), ((1, 1), -np.inf)):
        wrong = logits.copy()
        wrong[place] = value
        with pytest.raises(ValueError, match=r"`logits` should be finite.*1 rows.*row 1"):
            best_spans(wrong)
    with pytest.raises(ValueError, match=r"should have shape \(B, 2, S\)"):
        best_spans(logits[:, :, :0])
