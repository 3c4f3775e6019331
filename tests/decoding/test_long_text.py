"""Texts that a preprocessor would cut: refused where what follows is asked for, else warned of."""

import dataclasses
import warnings

import numpy as np
import pytest

from tests.decoding.language_models import causal_preprocessor, make, seq2seq_preprocessor
from tests.marks import only_torch

pytestmark = only_torch
LONG, SHORT = "abcdefgh", "ab"


def answering(model):
    return dataclasses.replace(model.config, label_words={"a": ["b", "d"]})


CALLS = {
    "score": lambda model, x: model.score(x, ["b", "d"], task_ids="a"),
    "predict_labels": lambda model, x: model.predict_labels(x, ["b", "d"], task_ids="a"),
    "words": lambda model, x: model.predict_labels(x, task_ids="a"),
    "predict": lambda model, x: model.predict({"text": x, "task_ids": "a"}, verbose=0),
    "generate": lambda model, x: model.generate(x, 4, task_ids="a", stop_token_ids=None),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_encoder_s_text_that_is_cut_is_warned_of_once(name):
    model = make("bart", seq2seq_preprocessor(6, 8))
    model.set_config(answering(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        CALLS[name](model, [SHORT])
    # Of ten tokens, two of which say where the text begins and ends.
    with pytest.warns(UserWarning, match="cuts text: of 9 tokens of a row it keeps 6") as found:
        CALLS[name](model, [SHORT, LONG])
    assert len([w for w in found if "cuts text" in str(w.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        CALLS[name](model, [LONG])


def test_both_sides_of_an_encoder_decoder():
    model = make("bart", seq2seq_preprocessor(6, 8))
    x = {"encoder_text": [SHORT, LONG], "decoder_text": ["a", "c"]}
    with pytest.warns(UserWarning, match="cuts text: of 9 tokens of a row it keeps 6"):
        model.score(x, ["b", "d"], task_ids="a")
    x = {"encoder_text": [SHORT], "decoder_text": [LONG]}
    with pytest.raises(ValueError, match="`inputs` should be texts of at most 8 tokens"):
        model.score(x, ["b", "d"], task_ids="a")


def test_a_causal_model_s_text_is_never_cut():
    model = make("gpt2", causal_preprocessor(8))
    message = r"`inputs` should be texts of at most 8 tokens \(`preprocessor.sequence_length` sets "
    with pytest.raises(ValueError, match=message + "it.: what follows them is scored"):
        model.score([LONG + "h"], ["b", "d"], task_ids="a")
    with pytest.raises(ValueError, match=message + "it.: a server is given all of them"):
        model.prompt_embeds([LONG + "h"], task_ids="a")
    (embeds,) = model.prompt_embeds([LONG[2:]], task_ids="a")
    # The start token, six letters and the prompt.
    assert embeds.shape[0] == 7 + model.config.num_virtual_tokens
    assert np.isfinite(embeds).all()
