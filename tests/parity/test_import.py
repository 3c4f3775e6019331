"""Adapters that PEFT wrote give PEFT's logits here, for every family."""

import warnings

import keras_hub
import pytest

import keras_mpt
from tests.marks import only_torch
from tests.parity import families
from tests.parity.measure import (
    LENGTH,
    TOLERANCE,
    base_difference,
    each_family,
    import_error,
    load,
    peft,
    save,
)

transformers = pytest.importorskip("transformers", reason="PEFT's models are transformers'")


@each_family
def test_logits_are_peft_s(name, pair_of):
    pair = pair_of(name)
    assert base_difference(pair) <= TOLERANCE
    assert import_error(pair) <= TOLERANCE


@only_torch
def test_a_base_that_keras_hub_read_by_itself_is_warned_of(tmp_path):
    """PEFT notes the folder of the base; keras-hub drops the epsilon that stands there."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    family = families.variant("smollm2")
    save(family, family.make(), base)
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(base),
        peft.MultitaskPromptTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_tasks=2
        ),
    )
    model.save_pretrained(adapter)
    own = keras_hub.models.Backbone.from_preset(str(base))
    with pytest.warns(UserWarning, match=r"`rms_norm_eps` is 1e-05, where layers .* \[1e-06\]"):
        keras_mpt.load_adapter(own, adapter)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        keras_mpt.load_adapter(load(base), adapter)
