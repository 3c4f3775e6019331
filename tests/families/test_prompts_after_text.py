"""A prompt of real tokens after the text gives what these tokens give there, in every family."""

import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.splicing.positions import task_class
from tests.families.configurations import FAMILIES, VOCABULARY
from tests.families.measure import move_weights
from tests.families.test_prefix_cache import CAUSAL, WITHOUT
from tests.marks import IS_EAGER

CANDIDATES = [[5], [7, 8, 9], [7, 3]]
LENGTHS = [6, 3, 6, 1]


@pytest.mark.parametrize("name", CAUSAL if IS_EAGER else ["GPT-2"])
def test_logits_and_scores_are_those_of_whole_passes_of_the_base(name):
    backbone = FAMILIES[name].build()
    move_weights(backbone)
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=3, prompt_position="after")
    model = keras_mpt.models.PromptTunedCausalLM(backbone, config)
    assert (model.decoding.cached is None) == (name in WITHOUT)
    rng = np.random.default_rng(0)
    prompt = rng.integers(2, VOCABULARY, 3).astype("int32")
    (variable,) = model.prompt.weights
    variable.assign(model.splice.embed_tokens(ops.convert_to_tensor(prompt)))
    base = task_class("CausalLM", backbone)(backbone=backbone, preprocessor=None)
    ids = rng.integers(2, VOCABULARY, (4, 6)).astype("int32")
    ids[2] = ids[0]
    mask = (np.arange(6) < np.array(LENGTHS)[:, None]).astype("int32")
    x = {"token_ids": ids, "padding_mask": mask}
    logits = ops.convert_to_numpy(model(x))
    scores = model.score(x, CANDIDATES)
    for row, length in enumerate(LENGTHS):
        text = ids[row, :length]
        given = whole(base, text, prompt, [])
        assert np.abs(logits[row, :length] - given).max() <= 1e-5 * np.abs(given).max()
        for c, tokens in enumerate(CANDIDATES):
            found = whole(base, text, prompt, tokens).astype("float64")
            p = np.exp(found - found.max(axis=-1, keepdims=True))
            log_p = np.log(p / p.sum(axis=-1, keepdims=True))
            expected = sum(log_p[length - 1 + i, token] for i, token in enumerate(tokens))
            np.testing.assert_allclose(scores[row, c], expected, rtol=1e-5, atol=1e-5)


def whole(base, text, prompt, tokens):
    """The base's logits at a text's and a continuation's tokens, the prompt before the last."""
    ids = np.concatenate([text[:-1], prompt, text[-1:], tokens]).astype("int32")[None]
    given = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    if "position_ids" in [tensor.name for tensor in base.backbone.inputs]:
        given["position_ids"] = np.arange(ids.shape[1])[None]
    logits = ops.convert_to_numpy(base(given))[0]
    return np.concatenate([logits[: len(text) - 1], logits[len(text) - 1 + len(prompt) :]])
