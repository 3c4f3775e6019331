"""An encoder that runs once and a decoder's keys and values, for every encoder-decoder."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests.families.configurations import FAMILIES, VOCABULARY, Family
from tests.families.measure import move_weights
from tests.marks import IS_EAGER, only_eager, slow_on_jax

NAMES = list(FAMILIES)
# Windows narrower than the text, which no family of the table has among its decoders.
WINDOWS = {
    f"{name} with windows": Family(
        FAMILIES[name].backbone,
        {
            **FAMILIES[name].arguments,
            "encoder_layer_types": ["sliding_attention"],
            "decoder_layer_types": ["sliding_attention"],
            "sliding_window": 3,
        },
    )
    for name in ("T5Gemma", "T5Gemma 2")
}
ENCODER_DECODERS = {name: FAMILIES[name] for name in NAMES[NAMES.index("BART") :]} | WINDOWS
SOME = list(ENCODER_DECODERS) if IS_EAGER else ["T5"]
TASK_IDS = np.array([0, 2, 1, 2])
LENGTHS = np.array([6, 3, 5, 1])
STARTS = np.array([2, 1, 3, 1])  # How many tokens of each decoder row are given.


def make(name, submodules=2, **config):
    """A model of three tasks, with weights so large that prompts matter."""
    backbone = ENCODER_DECODERS[name].build()
    move_weights(backbone)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_2_SEQ_LM",
        num_virtual_tokens=3,
        num_tasks=3,
        num_transformer_submodules=submodules,
        **config,
    )
    model = keras_mpt.prompt_tune(backbone, config)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(scale=0.7, size=variable.shape))
    return model


def inputs(decoder_lengths):
    """Rows padded on the right on both sides. Ids from 0: it is a token like any other here."""
    rng = np.random.default_rng(1)
    x = {}
    for side, width, lengths in (("encoder", 6, LENGTHS), ("decoder", 7, decoder_lengths)):
        mask = (np.arange(width) < np.reshape(lengths, (-1, 1))).astype("int32")
        ids = rng.integers(0, VOCABULARY, (4, width)).astype("int32")
        x |= {f"{side}_token_ids": ids * mask, f"{side}_padding_mask": mask}
    return x


@slow_on_jax
@pytest.mark.parametrize("submodules", [1, 2] if IS_EAGER else [2])
@pytest.mark.parametrize("name", SOME)
def test_cached_logits_are_the_splice_s(name, submodules):
    model = make(name, submodules)
    assert model.decoder_cache is not None
    x = inputs(np.full(4, 7))
    expected, others = (
        ops.convert_to_numpy(model({**x, "task_ids": t})) for t in (TASK_IDS, TASK_IDS[::-1])
    )
    assert np.abs(expected - others)[[0, 1]].max() > 1e-3 * np.abs(expected).max()
    x = {k: ops.convert_to_tensor(v) for k, v in x.items()}
    prompts, ids = model.prompt(TASK_IDS), x["decoder_token_ids"]
    encoded = model.encoder_once.encode(x, prompts)

    def assert_close(found):
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()

    outputs = model.splice.user_positions(model.encoder_once.decode(x, encoded, prompts))
    logits = model.head(keras.tree.flatten(outputs), training=False)
    assert_close(ops.convert_to_numpy(logits))
    # The first two tokens at once, before ones that are not there yet; they are run again, alone
    # and then with those after them, as samplers and `score` do.
    _, states, cache = model.decoder_cache.after(ids * (np.arange(7) < 2), encoded, prompts)
    expected_states = model.splice.follows_last_input(outputs)
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(s)[:, :2] for s in (states, expected_states)), atol=1e-4
    )
    found, start = [], 0
    for stop in (1, 2, 5, 6, 7):
        logits, _, cache = model.decoder_cache.step(ids[:, start:stop], cache, start)
        found.append(ops.convert_to_numpy(logits))
        start = stop
    assert_close(np.concatenate(found, axis=1))


# What a prompt of the encoder alone changes, `test_cached_logits_are_the_splice_s` shows of all.
@only_eager
@pytest.mark.parametrize(
    ("name", "submodules"), [*((name, 2) for name in SOME), ("T5", 1), ("BART", 1)]
)
def test_text_without_the_cache_is_the_same(name, submodules):
    model = make(name, submodules)
    samplers = keras_hub.samplers
    for sampler in (
        samplers.GreedySampler(),
        samplers.BeamSampler(num_beams=2),
        samplers.ContrastiveSampler(k=2, alpha=0.5),
        # Draws of the same seed.
        samplers.TopKSampler(k=4, seed=1),
        samplers.TopPSampler(p=0.9, seed=1),
        samplers.RandomSampler(seed=1),
    ):
        assert_same_text(model, sampler)


def assert_same_text(model, sampler):
    """`generate` with and without the cache, each with the sampler as it starts."""
    texts = []
    for use_cache in (True, False):
        model.compile(sampler=type(sampler).from_config(sampler.get_config()))
        made = model.generate(
            inputs(STARTS), task_ids=TASK_IDS, stop_token_ids=None, use_cache=use_cache
        )
        texts.append(made["decoder_token_ids"])
    np.testing.assert_array_equal(*texts)


@pytest.mark.parametrize("name", SOME)
def test_a_prompt_after_the_start_token_has_an_encoder_that_runs_once(name):
    """The decoder's prompt then stands among its tokens, which the cache cannot count."""
    model = make(name, prompt_position="after_start")
    assert model.decoder_cache is None
    assert model.encoder_once is not None
    for sampler in ("greedy", "contrastive" if IS_EAGER else "beam"):
        assert_same_text(model, keras_hub.samplers.get(sampler))
    # An encoder's alone does not stand in the decoder's way.
    assert make(name, 1, prompt_position="after_start").decoder_cache is not None


@pytest.mark.skipif(not IS_EAGER, reason="elsewhere a loop's body is traced, not run")
def test_what_runs_for_each_new_token(monkeypatch):
    model = make("T5")
    # On PyTorch, steps that are replayed would not be seen.
    model.compile(sampler="greedy", run_eagerly=keras.backend.backend() == "torch")
    encoded, shapes = [], []
    encode, step = model.encoder_once.encode, model.decoder_cache.step

    def counted_encode(x, prompts):
        encoded.append(tuple(x["encoder_token_ids"].shape))
        return encode(x, prompts)

    def counted_step(ids, *args):
        shapes.append(tuple(ids.shape))
        return step(ids, *args)

    monkeypatch.setattr(model.encoder_once, "encode", counted_encode)
    monkeypatch.setattr(model.decoder_cache, "step", counted_step)
    model.generate(inputs(STARTS), task_ids=TASK_IDS, stop_token_ids=None)
    assert encoded == [(4, 6)]
    # From the shortest row's length, 1, to 7: the first comes from the pass over the text.
    assert shapes == [(4, 1)] * 5


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="it compiles for long; run on the other two"
)
def test_half_precision():
    """Keys and values are kept in the backbone's dtype."""
    arguments = {**FAMILIES["T5"].arguments, "dtype": "bfloat16"}
    backbone = Family("T5Backbone", arguments).build()
    config = keras_mpt.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=3)
    model = keras_mpt.prompt_tune(backbone, config)
    x = {k: ops.convert_to_tensor(v) for k, v in inputs(np.full(4, 7)).items()}
    prompts = ops.repeat(model.prompt(model.prompt.indices(1)), 4, axis=0)
    encoded = model.encoder_once.encode(x, prompts)
    ids = x["decoder_token_ids"]
    *_, cache = model.decoder_cache.after(ids, encoded, prompts)
    found, _, _ = model.decoder_cache.step(ids[:, 4:], cache, 4)
    expected = ops.convert_to_numpy(ops.cast(model(x), "float32"))[:, 4:]
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())
    assert model.generate(inputs(STARTS), stop_token_ids=None)["decoder_padding_mask"].all()
