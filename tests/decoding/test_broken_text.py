"""Text that is no UTF-8, and numbers of classes that a language model has not, in words."""

import numpy as np
import pytest

import keras_mpt
from tests.decoding.language_models import causal_preprocessor, make
from tests.decoding.test_label_words import model_with
from tests.marks import only_torch

pytestmark = only_torch
BAD = "a\ud800"
CALLS = {
    "inputs": {
        "predict_labels": lambda m: m.predict_labels([BAD], task_ids="a"),
        "score": lambda m: m.score([BAD], ["b", "d"], task_ids="a"),
        "generate": lambda m: m.generate([BAD], 6, task_ids="a"),
        "predict": lambda m: m.predict({"text": [BAD], "task_ids": "a"}, verbose=0),
    },
    "candidates": {"score": lambda m: m.score(["a"], [BAD, "b"], task_ids="a")},
    "calibrate": {
        "predict_labels": lambda m: m.predict_labels(["a"], task_ids="a", calibrate=[BAD])
    },
    "label_words": {
        "config": lambda m: keras_mpt.PromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=2, label_words=[BAD, "b"]
        )
    },
}


@pytest.mark.parametrize(("name", "call"), [(n, c) for n in CALLS for c in CALLS[n]])
def test_text_that_no_tokenizer_reads(name, call):
    model = model_with({"a": ["b", "d"]})
    with pytest.raises(ValueError, match=rf"`{name}` should have text in UTF-8: .* 'a\\ud800'"):
        CALLS[name][call](model)


def test_targets_and_weights_of_other_shapes():
    model = model_with({"a": ["b", "d", "a"]})
    before = [np.array(v) for v in model.get_weights()]
    x = {"text": ["ab", "c", "d", "h"], "task_ids": "a"}
    message = (
        r"`y` should have the next token of each position, \(4, 8\), or the class of each row of "
        r"text, \(N,\), where its task has label words. Received: y of shape \(4, 3\)"
    )
    with pytest.raises(ValueError, match=message):
        model.fit(x, np.eye(3)[[0, 1, 2, 0]], verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("base", ["task", "backbone"])
def test_a_language_model_has_no_classes(base):
    import keras_hub

    backbone = make("gpt2").backbone
    lm = keras_hub.models.GPT2CausalLM(backbone, preprocessor=causal_preprocessor())
    config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="`task_type` should be 'SEQ_CLS' or 'TOKEN_CLS' where"):
        keras_mpt.prompt_tune(lm if base == "task" else backbone, config, num_classes=2)
