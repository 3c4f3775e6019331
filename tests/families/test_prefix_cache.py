"""The cache of keys and values after a prompt, against the splice, for every causal family."""

import dataclasses
import inspect

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.splicing.positions import task_class
from keras_mpt.splicing.prefix_cache import prefix_cache
from tests.families.configurations import FAMILIES, VOCABULARY
from tests.families.measure import kind_of, move_weights
from tests.marks import IS_EAGER, slow_on_jax

# keras-hub keeps states without positions in linear attention, and turns GPT-NeoX's cached queries
# as if they stood at the first position.
WITHOUT = {"GPT-NeoX", "Qwen 3.5", "Qwen 3.5 MoE", "RWKV-7"}
# The table has encoders first, then causal models, then encoder-decoders.
NAMES = list(FAMILIES)
CAUSAL = NAMES[NAMES.index("BLOOM") : NAMES.index("BART")]
TASK_IDS = np.array([0, 2, 1, 2])


@pytest.mark.parametrize("name", CAUSAL if IS_EAGER else ["GPT-2"])
def test_cached_logits_are_the_splice_s(name):
    backbone = FAMILIES[name].build()
    assert kind_of(backbone) == "causal"
    move_weights(backbone)
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=3)
    model = keras_mpt.models.PromptTunedCausalLM(backbone, config)
    assert (model.prefix_cache is None) == (name in WITHOUT)
    if model.prefix_cache is None:
        return
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    ids = rng.integers(2, VOCABULARY, (4, 6)).astype("int32")
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": TASK_IDS}
    expected = ops.convert_to_numpy(model(x))
    # The prompts of three tasks, then each row's own, four tokens at once and two one by one.
    cache = model.prefix_cache.after(model.prompt(np.arange(3)))
    cache = model.prefix_cache.for_rows(cache, ops.convert_to_tensor(TASK_IDS), 6)
    found, start = [], 0
    for stop in (4, 5, 6):
        tokens = ops.convert_to_tensor(ids[:, start:stop])
        logits, _, cache = model.prefix_cache.step(tokens, cache, start)
        found.append(ops.convert_to_numpy(logits))
        start = stop
    difference = np.abs(np.concatenate(found, axis=1) - expected).max()
    assert difference <= 1e-5 * np.abs(expected).max()


# As IS_EAGER, and what is changed for one of them alone: Gemma 3 keeps pairs, OPT has one layer for
# tokens and positions.
@slow_on_jax
@pytest.mark.parametrize("name", CAUSAL if IS_EAGER else ["Gemma 3"])
def test_shared_prompts_give_the_splice_s_logits_and_gradients(name):
    """Under padding of any kind; one step of plain gradient descent shows the gradients."""
    family = FAMILIES[name]
    takes = inspect.signature(getattr(keras_hub.models, family.backbone)).parameters
    still = {"dropout": 0.0} if "dropout" in takes else {}
    backbone = dataclasses.replace(family, arguments={**family.arguments, **still}).build()
    move_weights(backbone)
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=3)
    rng = np.random.default_rng(0)
    values = [rng.normal(size=s) for s in ((3, 3, 1), (3, 1, 64), (3, 64))]
    ids = rng.integers(2, VOCABULARY, (5, 6)).astype("int32")
    mask = [[1] * 6, [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0]]
    x = {"token_ids": ids, "padding_mask": np.array(mask), "task_ids": np.array([0, 2, 2, 0, 2])}
    found = []
    for share_prompts in ("auto", False):
        model = keras_mpt.models.PromptTunedCausalLM(backbone, config, share_prompts=share_prompts)
        width = model.prompt.token_dim
        model.prompt.prefix_task_cols.assign(values[0])
        model.prompt.prefix_task_rows.assign(values[1][..., :width])
        model.prompt.prompt_embeddings.assign(values[2][:, :width])
        before = model.get_weights()
        logits = ops.convert_to_numpy(model(x))
        model.compile(optimizer=keras.optimizers.SGD(1.0))
        model.train_on_batch(x, np.roll(ids, -1, 1))
        trained = [ops.convert_to_numpy(v) for v in model.trainable_variables]
        found.append([logits, *trained])
        rows = ops.convert_to_numpy(model.prompt.prefix_task_rows)
        moved = (rows != values[1][..., :width].astype("float32")).any(axis=(1, 2))
        model.set_weights(before)
    for value, expected in zip(*found, strict=True):
        assert np.abs(value - expected).max() <= 1e-5 * np.abs(expected).max()
    # The step did something, and to the tasks of the batch alone.
    assert moved.tolist() == [True, False, True]


@pytest.mark.skipif(not IS_EAGER, reason="keras-hub's alone: one backend is enough")
def test_gpt_neox_s_own_cache_is_another_model():
    """Without any prompt. Should this fail with a new keras-hub, GPT-NeoX can have its cache."""
    backbone = FAMILIES["GPT-NeoX"].build()
    move_weights(backbone)
    task = task_class("CausalLM", backbone)(backbone=backbone, preprocessor=None)
    model = keras_mpt.models.PromptTunedCausalLM(
        backbone, keras_mpt.PromptTuningConfig(num_virtual_tokens=3)
    )
    assert prefix_cache(task, model.splice) is None
    ids = np.random.default_rng(0).integers(2, VOCABULARY, (1, 6)).astype("int32")
    whole = ops.convert_to_numpy(task({"token_ids": ids, "padding_mask": np.ones_like(ids)}))
    _, cache = task._build_cache(ops.convert_to_tensor(ids))
    last, _, _ = task.call_with_cache(ops.convert_to_tensor(ids[:, 5:]), cache, 5)
    assert np.abs(ops.convert_to_numpy(last)[:, 0] - whole[:, 5]).max() > 1e-3
