"""Steps that are recorded and replayed on PyTorch: what the model computes, as it is by then."""

import logging

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

from keras_mpt.arrays import to_numpy
from keras_mpt.decoding import replayed_steps
from keras_mpt.decoding.generate import _batch
from keras_mpt.decoding.replayed_steps import ReplayedSteps
from keras_mpt.decoding.sampler_steps import SamplerSteps
from tests.decoding.language_models import IDS, KINDS, generated, inputs, make
from tests.marks import only_torch

pytestmark = only_torch

TASK_IDS = [0, 2]


def tokens(model, task_ids=TASK_IDS, **kwargs):
    kind = "gpt2" if len(model.splice.token_inputs) == 1 else "t5"
    return generated(model.generate(inputs(kind), task_ids=task_ids, stop_token_ids=None, **kwargs))


def as_it_is(model, sampler="greedy", task_ids=TASK_IDS):
    """The same model's tokens, with no step replayed."""
    model.compile(sampler=sampler, run_eagerly=True)
    wanted = tokens(model, task_ids)
    assert len(model.functions.steps) == 0
    model.compile(sampler=sampler)
    return wanted


def checked(model):
    """How many steps are replayed, of how many there are."""
    steps = list(model.functions.steps._steps.values())
    return sum(step.is_checked for step in steps), len(steps)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_replayed_logits_are_the_model_s(kind, dtype):
    import torch

    keras.config.set_dtype_policy(dtype)
    try:
        model = make(kind)
    finally:
        keras.config.set_dtype_policy("float32")
    decoder = model.decoding.cached
    x = model.model_inputs.prepare({**inputs(kind), "task_ids": TASK_IDS})
    batch, _ = _batch(model.decoding, decoder, {name: to_numpy(v) for name, v in x.items()})
    kept = ReplayedSteps()
    ids = ops.cast(ops.tile(ops.arange(1, 10), (2, 1)), "int32")
    tolerance = 1e-6 if dtype == "float32" else 4e-3
    with torch.no_grad():
        given = ops.cast(batch.text_ids[:, :2], "int32"), batch.context, 7
        _, cache = decoder.read(*given)
        replayed = SamplerSteps(kept, "decoder").next(None, decoder.next_logits)
        theirs = cache
        for place in range(2, 9):
            wanted, states, cache = decoder.next_logits(ids, cache, place)
            logits, own_states, theirs = replayed(ids, theirs, ops.convert_to_tensor(place))
            for a, b in ((logits, wanted), (own_states, states)):
                a, b = ops.convert_to_numpy(a), ops.convert_to_numpy(b)
                np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())
    (step,) = kept._steps.values()
    assert step.is_checked


WEIGHT = keras.Variable([2.0]) if keras.backend.backend() == "torch" else None
TABLE = ops.convert_to_tensor([1.0, 2.0, 3.0])


def scaled(place, given):
    x, y = given
    y = ops.slice_update(y, (0, place), x[:, :1] * place)
    return [x + 1.0, y]


def run(step, places, given, **kwargs):
    import torch

    kept = ReplayedSteps()
    with torch.no_grad():
        found = kept.of("step", given)
        taken = found.in_loop(step, **kwargs)
        for place in places:
            wanted = step(place, given)
            given = list(taken(place, given))
            for a, b in zip(given, wanted, strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
    return found


def test_what_follows_the_place_and_what_is_written():
    given = [ops.ones((2, 3)), ops.zeros((2, 9))]
    found = run(scaled, range(2, 8), given, gives_back=True)
    assert found.is_checked
    # The caller's own tensors are as they were.
    assert not ops.convert_to_numpy(given[1]).any()
    again = [ops.ones((2, 3)), ops.zeros((2, 9))]
    run(scaled, range(2, 8), again, may_write=False)
    assert not ops.convert_to_numpy(again[1]).any()


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (lambda p, g: [g[0] + p**2, g[1]], "and then"),
        (lambda p, g: [g[0] + float(g[1][0, 0]), g[1]], "a number that is read"),
        (lambda p, g: [g[0] + g[1].numpy().sum(), g[1]], "a number that is read"),
        (lambda p, g: [g[0] + keras.random.normal((3,)), g[1]], ""),
        (lambda p, g: [g[0] + ops.convert_to_tensor([p, 2.0 * p, 0.0]), g[1]], "other numbers"),
        (lambda p, g: [g[0] * 2 if p % 2 else g[0] + 2, g[1]], "and then"),
        (lambda p, g: [g[0] * float(WEIGHT[0]), g[1]], "a number that is read"),
        (lambda p, g: [g[0] + g[1][g[1] < p].shape[0], g[1]], "whose shape depends on numbers"),
        (lambda p, g: [g[0] + TABLE.add_(1.0), g[1]], "neither given nor a weight"),
    ],
    ids=[
        "a square", "item", "numpy", "random", "a table", "a branch", "a weight's number",
        "a mask's count", "a constant that changes",
    ],
)  # fmt: skip
def test_what_a_recording_does_not_tell_runs_as_it_is(step, why, caplog):
    import torch

    given = [torch.ones(2, 3), torch.ones(2, 9)]
    kept = ReplayedSteps()
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        for name in "ab":
            found = kept.of(name, given)
            taken = found.in_loop(step)
            for place in (3, 4, 5):
                taken(place, given)
            assert found.is_refused
    (said,) = caplog.messages
    assert said.startswith("A step of `generate` runs through Keras, which is slower: ")
    assert why in said


def test_what_is_large_is_not_held(monkeypatch, caplog):
    from keras_mpt.decoding import recording

    monkeypatch.setattr(recording, "MOST_BYTES", 100)
    with caplog.at_level(logging.WARNING):
        given = [ops.ones((2, 3)), ops.zeros((2, 9))]
        assert run(scaled, range(2, 8), given).is_refused
    assert "which a recording would hold" in caplog.messages[0]


def test_under_autocast_it_is_another_step():
    import torch

    model = make("gpt2")
    for _ in range(3):
        tokens(model)
    assert checked(model) == (2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        tokens(model)
    assert checked(model)[1] == 4


class Own(keras.layers.LayerNormalization):
    """Not Keras's own."""


def test_others_layers_run_through_keras():
    model = make("gpt2")
    model.backbone.get_layer("layer_norm").__class__ = Own
    for _ in range(3):
        tokens(model)
    assert checked(model) == (0, 0)


def test_a_wrong_recording_is_found_out(monkeypatch):
    from keras_mpt.decoding import replay

    def wrong(graph):
        for node in graph.graph.nodes:
            if node.target is replay.torch.ops.aten.add.Tensor:
                node.args = (node.args[0], 2.0)
        return set()

    monkeypatch.setattr(replay.shortening, "shorten", wrong)
    given = [ops.ones((2, 3)), ops.zeros((2, 9))]
    assert run(scaled, range(2, 8), given, gives_back=True).is_refused


def test_few_steps_are_kept(monkeypatch):
    monkeypatch.setattr(replayed_steps, "MOST_STEPS", 2)
    kept = ReplayedSteps()
    for width in (2, 3, 4, 5, 4):
        kept.of("step", [ops.ones((1, width))])
    assert [sizes[0][0] for _, sizes in kept._steps] == [(1, 5), (1, 4)]


@pytest.mark.parametrize("change", ["weights", "training", "int8", "lora", "setting"])
def test_weights_that_change_after_a_step_was_recorded(change):
    model = make("gpt2")
    for _ in range(3):
        before = tokens(model)
    assert checked(model) == (2, 2)
    if change == "weights":
        for weight in model.backbone.weights:
            weight.assign(ops.flip(weight))
    elif change == "training":
        x = {**inputs("gpt2"), "task_ids": TASK_IDS}
        model.compile(keras.optimizers.SGD(30.0), sampler="greedy")
        for _ in range(3):
            tokens(model)
        model.fit(x, np.roll(IDS, 1), epochs=2, verbose=0)
    elif change == "int8":
        model.backbone.quantize("int8")
    elif change == "lora":
        model.backbone.token_embedding.enable_lora(2)
        for weight in model.backbone.token_embedding.weights[1:]:
            weight.assign(np.random.default_rng(3).normal(size=weight.shape))
    else:  # A number that Python reads of a layer.
        for layer in model.backbone.transformer_layers:
            layer._feedforward_layer_norm.epsilon = 1e4
    after = [tokens(model) for _ in range(3)]
    assert checked(model) == (2, 2)
    model.kept_prompts.clear()
    wanted = as_it_is(model)
    for found in after:
        np.testing.assert_array_equal(found, wanted)
    if change in ("weights", "training", "setting"):
        assert (wanted != before).any()


class LooksTwice(keras_hub.samplers.Sampler):
    """Asks for the same logits twice, and uses the first cache."""

    def __call__(self, next, prompt, cache=None, index=0, mask=None, **kwargs):
        for place in range(int(index), prompt.shape[1]):
            first, _, _ = next(ops.roll(prompt, 1), cache, place)
            logits, _, cache = next(prompt, cache, place)
            token = ops.argmax(logits + 0.1 * first, axis=-1)
            token = ops.where(mask[:, place], prompt[:, place], ops.cast(token, prompt.dtype))
            prompt = ops.slice_update(prompt, (0, place), token[:, None])
        return prompt


@pytest.mark.parametrize(
    "sampler",
    [
        keras_hub.samplers.BeamSampler(num_beams=2),
        keras_hub.samplers.ContrastiveSampler(k=2, alpha=0.5),
        LooksTwice(),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_samplers(sampler):
    model = make("gpt2")
    wanted = as_it_is(model, sampler)
    for _ in range(4):
        np.testing.assert_array_equal(tokens(model), wanted)
    # Contrastive search asks for its first logits apart, and in one place.
    steps = list(model.functions.steps._steps.values())
    assert steps[-1].is_checked
    assert not any(step.is_refused for step in steps)


def test_samplers_that_draw():
    model = make("gpt2")
    found = []
    for run_eagerly in (True, False):
        sampler = keras_hub.samplers.TopKSampler(k=5, seed=3)
        model.compile(sampler=sampler, run_eagerly=run_eagerly)
        found.append([tokens(model).tolist() for _ in range(4)])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]
    assert checked(model) == (2, 2)


def test_stops_where_it_stopped():
    model = make("gpt2")
    wanted = as_it_is(model)
    stop = [int(wanted[1, 3])]
    model.compile(sampler="greedy", run_eagerly=True)
    made = model.generate(inputs("gpt2"), task_ids=TASK_IDS, stop_token_ids=stop)
    model.compile(sampler="greedy")
    for _ in range(4):
        found = model.generate(inputs("gpt2"), task_ids=TASK_IDS, stop_token_ids=stop)
        keras.tree.map_structure(np.testing.assert_array_equal, found, made)
