"""A warning where PEFT will read an adapter otherwise than the model that saved it."""

import warnings

import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_torch

pytestmark = only_torch
POSITION = "prompts before all tokens, this model after the start token"
HEADS = "one head for all tasks, of 5 classes here"
MEAN = "no mean over tokens"
LAST = "the last position, be it padding"
DECODER = "leaves the decoder's prompts out"


def classifier(num_classes=3, kind="bert", tasks=2, **kwargs):
    position = kwargs.pop("prompt_position", None)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=3, num_tasks=tasks, prompt_position=position
    )
    return keras_mpt.prompt_tune(tiny.backbone(kind), config, num_classes=num_classes, **kwargs)


def seq2seq(submodules):
    config = keras_mpt.PromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3, num_transformer_submodules=submodules
    )
    return keras_mpt.prompt_tune(tiny.backbone("bart"), config)


CASES = {
    "an encoder": (classifier, [POSITION]),
    "an encoder's heads": (lambda: classifier([2, 3]), [POSITION, HEADS]),
    "PEFT's position": (lambda: classifier(prompt_position="before"), []),
    "one task's own head": (lambda: classifier([5], tasks=1, prompt_position="before"), []),
    "heads": (lambda: classifier([2, 3], prompt_position="before"), [HEADS]),
    "mean": (lambda: classifier(prompt_position="before", pooling="mean"), [MEAN]),
    "a decoder": (lambda: classifier(kind="gpt2", pooling="last"), [LAST]),
    "prompts of two stacks": (lambda: seq2seq(2), [DECODER]),
    "prompts of one stack": (lambda: seq2seq(1), []),
    "folded": (lambda: classifier([2, 3], prompt_position="before").fold(0), []),
}


@pytest.mark.parametrize("what", CASES)
def test_each_model_warns_once(tmp_path, what):
    make, wanted = CASES[what]
    model = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.save_adapter(tmp_path / "a")
        model.save_adapter(tmp_path / "b")
    texts = [str(w.message) for w in caught if "PEFT" in str(w.message)]
    assert len(texts) == bool(wanted)
    for reason in (POSITION, HEADS, MEAN, LAST, DECODER):
        assert (reason in "".join(texts)) == (reason in wanted)
    assert all(w.filename == __file__ for w in caught if "PEFT" in str(w.message))
    assert (tmp_path / "a" / "adapter_config.json").exists()
