"""Log-likelihoods of candidates against whole passes in float64, for every language model."""

import keras
import numpy as np
import pytest

import keras_mpt
from tests.families.configurations import FAMILIES, VOCABULARY
from tests.families.measure import kind_of, move_weights
from tests.marks import IS_EAGER, slow_on_jax

NAMES = list(FAMILIES)
LANGUAGE_MODELS = NAMES[NAMES.index("BLOOM") :]
# Without keys and values (keras-hub's are wrong there), and an encoder-decoder; GPT-2 has others.
SOME = ["GPT-NeoX", "T5Gemma"]
TASK_IDS = np.array([0, 2, 1, 2])
LENGTHS, ENCODER_LENGTHS = np.array([4, 1, 3, 4]), np.array([6, 2, 4, 5])
CANDIDATES = [[5], [7, 8, 9], [3, 0]]


@slow_on_jax
@pytest.mark.parametrize("name", LANGUAGE_MODELS if IS_EAGER else SOME)
def test_scores_are_those_of_whole_passes(name):
    backbone = FAMILIES[name].build()
    move_weights(backbone)
    task_type = "CAUSAL_LM" if kind_of(backbone) == "causal" else "SEQ_2_SEQ_LM"
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=3, num_tasks=3
    )
    model = keras_mpt.prompt_tune(backbone, config)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    side = "" if task_type == "CAUSAL_LM" else "decoder_"
    x = {} if task_type == "CAUSAL_LM" else rows(rng, "encoder_", 6, ENCODER_LENGTHS)
    x |= rows(rng, side, 5, LENGTHS)
    expected = whole_passes(model, x, side)
    # Rounding of a softmax over logits of this size.
    tolerance = {"rtol": 0, "atol": 1e-6 * np.abs(expected).max()}
    for use_cache in (True, False):
        found = model.score(x, CANDIDATES, task_ids=TASK_IDS, use_cache=use_cache)
        np.testing.assert_allclose(found, expected, **tolerance)
    others = model.score(x, CANDIDATES, task_ids=TASK_IDS[::-1])
    assert np.abs(others - found)[[0, 1]].max() > 1e-4


def rows(rng, side, width, lengths):
    """Random ids, padded on the right."""
    mask = (np.arange(width) < lengths[:, None]).astype("int32")
    ids = rng.integers(0, VOCABULARY, mask.shape) * mask
    return {f"{side}token_ids": ids, f"{side}padding_mask": mask}


def whole_passes(model, x, side):
    """The sums (B, C): a pass for each row and candidate, the softmax taken in float64."""
    sums = np.zeros((len(TASK_IDS), len(CANDIDATES)))
    for b, c in np.ndindex(sums.shape):
        text = x[f"{side}token_ids"][b, : LENGTHS[b]]
        whole = np.concatenate([text, CANDIDATES[c]])[None]
        own = {name: value[b : b + 1] for name, value in x.items()}
        own |= {f"{side}token_ids": whole, f"{side}padding_mask": np.ones_like(whole)}
        logits = keras.ops.convert_to_numpy(model({**own, "task_ids": TASK_IDS[b : b + 1]}))
        p = np.exp(logits[0].astype("float64"))
        log_p = np.log(p / p.sum(axis=-1, keepdims=True))
        sums[b, c] = sum(log_p[i - 1, whole[0, i]] for i in range(len(text), len(whole[0])))
    return sums
