"""What P is multiplied by on its way to a file, for models that scale their embeddings."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.adapters.embedding_scale import embedding_scale
from keras_mpt.splicing.splice import Splice
from tests.parity.families import ALL_ON
from tests.parity.measure import (
    LENGTH,
    RANKS,
    TOLERANCE,
    data,
    difference,
    each_family,
    load_peft_adapter,
    our_inputs,
    peft_logits,
    torch,
)

on_one_backend = pytest.mark.skipif(
    keras.backend.backend() != ALL_ON, reason=f"arithmetic of NumPy's: tested on {ALL_ON}"
)
SCALED = ("gemma", "gemma3", "t5gemma2")


def gemma(dtype="float32", **changes):
    """keras-hub's, with a scale √24 that is no power of two."""
    sizes = {"vocabulary_size": 30, "num_layers": 1, "num_query_heads": 2, "hidden_dim": 24}
    sizes |= {"num_key_value_heads": 1, "intermediate_dim": 16, "head_dim": 8}
    return keras_hub.models.GemmaBackbone(**sizes, dtype=dtype, **changes)


@each_family
def test_scale_is_that_of_transformers_token_embedding(name, pair_of):
    """`embed_scale` is where transformers keeps it."""
    pair = pair_of(name)
    table = pair.base.get_input_embeddings()
    expected = float(getattr(table, "embed_scale", 1.0))
    submodules = 2 if pair.family.task_type == "SEQ_2_SEQ_LM" else 1
    found = embedding_scale(Splice(pair.backbone, LENGTH, submodules), pair.backbone)
    assert found.shape == (LENGTH * submodules, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@on_one_backend
@pytest.mark.parametrize("name", SCALED)
def test_p_is_scaled_on_disk_and_factors_are_not(name, pair_of, tmp_path):
    model = load_peft_adapter(pair_of(name))
    model.save_adapter(tmp_path / "ours")
    for folder in (pair_of(name).folder / "peft", tmp_path / "ours"):
        saved, state = keras_mpt.read_state_dict(folder), model.prompt.get_peft_state_dict()
        np.testing.assert_array_equal(saved["prompt_embeddings"], 4 * state["prompt_embeddings"])
        for factor in ("prefix_task_cols", "prefix_task_rows"):
            np.testing.assert_array_equal(saved[factor], state[factor])


def test_scale_of_a_half_precision_backbone():
    """The constant in its graph has its dtype."""
    backbone = gemma("bfloat16")
    found = embedding_scale(Splice(backbone, LENGTH), backbone)
    np.testing.assert_allclose(found, np.full((LENGTH, 1), 24**0.5), rtol=2**-8)


@on_one_backend
def test_saving_and_loading_keep_p_where_the_scale_rounds(tmp_path):
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=LENGTH, num_tasks=2)
    model = keras_mpt.prompt_tune(gemma(), config)
    before = model.prompt.get_peft_state_dict()["prompt_embeddings"]
    model.save_adapter(tmp_path / "adapter")
    saved = keras_mpt.read_state_dict(tmp_path / "adapter")["prompt_embeddings"]
    np.testing.assert_allclose(saved, before * 24**0.5, rtol=1e-6)
    model.load_adapter(tmp_path / "adapter")
    # A multiplication and a division, each rounded once.
    after = model.prompt.get_peft_state_dict()["prompt_embeddings"]
    np.testing.assert_allclose(after, before, rtol=2 * np.finfo("float32").eps)


@on_one_backend
@pytest.mark.parametrize("start", ["EXACT_SOURCE_TASK", "ONLY_SOURCE_SHARED"])
def test_starts_read_a_source_file_at_the_same_scale(start, pair_of):
    pair, d = pair_of("gemma"), data()
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=LENGTH,
        num_ranks=RANKS,
        prompt_tuning_init=start,
        prompt_tuning_init_state_dict_path=str(pair.folder / "peft"),
        prompt_tuning_init_task=2,
        prompt_position="before",
    )
    ours = keras_mpt.prompt_tune(pair.backbone, config)
    loaded = load_peft_adapter(pair).prompt.get_peft_state_dict()
    found = ours.prompt.get_peft_state_dict()["prompt_embeddings"]
    np.testing.assert_array_equal(found, loaded["prompt_embeddings"])
    if start == "EXACT_SOURCE_TASK":
        found = ops.convert_to_numpy(ours({**our_inputs(pair, d), "task_ids": 0}))
        with torch.no_grad():
            expected = peft_logits(pair, pair.model, d, task_ids=[2] * len(found)).numpy()
        assert difference(found, expected, d["mask"]) <= TOLERANCE


@on_one_backend
def test_text_starts_are_in_the_model_s_own_scale():
    """Token embeddings of our backbone are not yet multiplied, and neither is P."""
    config = keras_mpt.PromptTuningConfig(
        num_virtual_tokens=LENGTH, prompt_tuning_init="SAMPLE_VOCAB"
    )
    backbone = gemma()
    prompt = keras_mpt.prompt_tune(backbone, config).prompt.get_peft_state_dict()[
        "prompt_embeddings"
    ]
    table = ops.convert_to_numpy(backbone.token_embedding.embeddings)
    assert all((row == table).all(axis=1).any() for row in prompt)
