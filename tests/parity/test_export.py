"""Adapters that we write open in PEFT, without warnings, with our logits."""

import json

import numpy as np
import pytest

import keras_mpt
from tests.parity.families import KINDS
from tests.parity.measure import (
    LENGTH,
    TOLERANCE,
    each_family,
    export_error,
    load_peft_adapter,
    peft,
)


@each_family
def test_logits_are_ours(name, pair_of):
    assert export_error(pair_of(name)) <= TOLERANCE


@pytest.mark.parametrize("name", KINDS)
def test_loading_and_saving_again_keeps_peft_s_weights_and_config(name, pair_of, tmp_path):
    pair = pair_of(name)
    load_peft_adapter(pair).save_adapter(tmp_path / "again")
    folders = (pair.folder / "peft", tmp_path / "again")
    before, after = (keras_mpt.read_state_dict(folder) for folder in folders)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    before, after = (json.loads((f / "adapter_config.json").read_text()) for f in folders)
    assert after == before


def test_a_source_start_does_not_follow_the_adapter_into_peft(pair_of, tmp_path):
    """PEFT runs a source start again when it opens an adapter; ours must not name a lost file."""
    pair = pair_of("gpt2")
    common = {"task_type": "CAUSAL_LM", "num_virtual_tokens": LENGTH}
    source = keras_mpt.prompt_tune(
        pair.backbone, keras_mpt.MultitaskPromptTuningConfig(num_tasks=2, **common)
    )
    source.save_adapter(tmp_path / "source")
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_tasks=3,
        prompt_tuning_init="AVERAGE_SOURCE_TASKS",
        prompt_tuning_init_state_dict_path=str(tmp_path / "source"),
        **common,
    )
    keras_mpt.prompt_tune(pair.backbone, config).save_adapter(tmp_path / "target")
    for file in (tmp_path / "source").iterdir():
        file.unlink()
    opened = peft.PeftModel.from_pretrained(pair.family.make(), tmp_path / "target")
    found = opened.prompt_encoder["default"].embedding.weight.detach().numpy()
    np.testing.assert_array_equal(found, source.prompt.get_peft_state_dict()["prompt_embeddings"])
