"""Every family of the table, on this backend, and that the table misses none."""

import dataclasses
import inspect

import keras
import keras_hub
import pytest

import keras_mpt
from keras_mpt.splicing.splice import Splice
from tests.families.configurations import FAMILIES, NOT_TEXT, ONE_OF_EACH_KIND, REFUSED
from tests.families.exact import is_exact
from tests.families.measure import measure

SLOW = [name for name in FAMILIES if name not in ONE_OF_EACH_KIND]


@pytest.fixture
def skip_slow(request):
    """PyTorch compiles nothing, and measures every family; the others where they are asked to."""
    ordinary = keras.backend.backend() != "torch" and not request.config.getoption("--all-families")
    if ordinary and request.node.callspec.params["name"] in SLOW:
        pytest.skip("one family of each kind is measured here; --all-families measures all")


@pytest.mark.usefixtures("skip_slow")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_of_real_tokens_gives_what_those_tokens_give(name, tmp_path):
    assert is_exact(measure(FAMILIES[name].build(), tmp_path))


def _three_layers(name):
    """The family with three layers; in an encoder-decoder, on each side."""
    given = FAMILIES[name].arguments
    more = {key: 3 for key in given if "num_layers" in key}
    for key in (key for key in given if key.endswith("layer_types")):
        more[key] = (given[key] * 3)[:3]
    if "rope_layer_enabled_list" in given:
        more["rope_layer_enabled_list"] = [True] * 3
    return dataclasses.replace(FAMILIES[name], arguments={**given, **more})


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="no backend has a say in it")
@pytest.mark.parametrize("name", FAMILIES)
def test_each_layer_has_its_hidden_states(name):
    backbone = _three_layers(name).build()
    assert len(Splice(backbone, num_virtual_tokens=2).hidden_states) == 3


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_prompt_can_enter_is_refused_as_the_model_is_built(name):
    family, message = REFUSED[name]
    with pytest.raises(ValueError) as caught:
        keras_mpt.prompt_tune(family.build(), keras_mpt.PromptTuningConfig(num_virtual_tokens=2))
    assert str(caught.value) == message


def test_every_backbone_with_token_ids_has_a_place_in_the_table():
    exported = {
        name: value
        for name, value in vars(keras_hub.models).items()
        if name.endswith("Backbone") and "token_ids" in inspect.getsource(value)
    }
    families = [*FAMILIES.values(), *(family for family, _ in REFUSED.values())]
    listed = {getattr(keras_hub.models, family.backbone) for family in families}
    listed |= {getattr(keras_hub.models, name) for name in NOT_TEXT}
    assert {name for name, value in exported.items() if value not in listed} == set()
    assert len(exported) > 50
    assert not {f.backbone for f in FAMILIES.values()} & set(NOT_TEXT)


def test_keras_hub_leaves_the_tie_of_a_llama_out_of_its_config():
    # A tied Llama (3.2) cannot be loaded from `.keras`, by keras-hub itself; its adapters can.
    # When this fails, the note in docs/families.md is out of date.
    arguments = FAMILIES["Llama"].arguments
    backbone = keras_hub.models.LlamaBackbone(**arguments, tie_word_embeddings=True)
    assert "tie_word_embeddings" not in backbone.get_config()
