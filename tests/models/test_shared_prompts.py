"""A causal model that computes each task's prompt once, against a prompt spliced into every row."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.families.configurations import FAMILIES
from tests.marks import IS_EAGER, only_eager, slow_on_jax, slow_on_tensorflow

BACKEND = keras.backend.backend()
LENGTH = 3


def make(share_prompts, num_tasks=3, backbone=None, dropout=0.0, **settings):
    """A GPT-2 of so many tasks (none for `None`), always with the same weights."""
    backbone = tiny.backbone("gpt2", dropout=dropout) if backbone is None else backbone
    if num_tasks is None:
        config = keras_mpt.PromptTuningConfig(num_virtual_tokens=LENGTH)
    else:
        config = keras_mpt.MultitaskPromptTuningConfig(
            num_virtual_tokens=LENGTH, num_tasks=num_tasks
        )
    model = keras_mpt.models.PromptTunedCausalLM(backbone, config, share_prompts=share_prompts)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(scale=0.4, size=variable.shape))
    model.compile(optimizer=keras.optimizers.Adam(0.01), **settings)
    return model


def data(num_tasks=3, rows=8):
    """Rows padded on the right, on the left and in their midst, and a target for each token."""
    rng = np.random.default_rng(1)
    ids = rng.integers(2, tiny.VOCABULARY, (rows, 6))
    mask = (np.arange(6) < rng.integers(1, 7, (rows, 1))).astype("int32")
    mask[1] = mask[1, ::-1]
    mask[2] = [0, 1, 1, 0, 1, 0]
    x = {"token_ids": ids, "padding_mask": mask}
    if num_tasks is not None:
        x["task_ids"] = rng.integers(0, num_tasks, rows)
    return x, rng.integers(2, tiny.VOCABULARY, (rows, 6))


def run(model, x, y):
    """What training and evaluation give: weights, losses and logits."""
    history = model.fit(x, y, batch_size=4, epochs=6, shuffle=False, verbose=0)
    losses = [*history.history["loss"], model.evaluate(x, y, batch_size=4, verbose=0)[0]]
    weights = [ops.convert_to_numpy(v) for v in model.trainable_variables]
    return weights, np.array(losses), model.predict(x, batch_size=4, verbose=0)


# Fewer tasks than rows in a batch, more, and one prompt without tasks.
@pytest.mark.parametrize("num_tasks", [3, 20, None] if IS_EAGER else [3])
def test_twelve_steps_of_adam_are_those_of_the_splice(num_tasks):
    # On TensorFlow by XLA. Keras takes it on PyTorch for torch.compile, which needs a C++ compiler.
    settings = {"jit_compile": True} if BACKEND == "tensorflow" else {}
    x, y = data(num_tasks)
    expected = run(make(False, num_tasks, **settings), x, y)
    weights, losses, logits = run(make(True, num_tasks, **settings), x, y)
    for value, other in zip(weights, expected[0], strict=True):
        np.testing.assert_allclose(value, other, atol=2e-6)
    np.testing.assert_allclose(losses, expected[1], rtol=1e-6)
    np.testing.assert_allclose(logits, expected[2], atol=1e-5 * np.abs(expected[2]).max())


@slow_on_jax
def test_training_is_the_same_run_eagerly():
    x, y = data(rows=4)
    trained = []
    for share_prompts in (True, False):
        model = make(share_prompts, run_eagerly=True)
        model.fit(x, y, shuffle=False, verbose=0)
        trained.append([ops.convert_to_numpy(v) for v in model.trainable_variables])
    for value, other in zip(*trained, strict=True):
        np.testing.assert_allclose(value, other, atol=2e-6)


def prompts_of_steps(model):
    """How many prompts each traced (on PyTorch: each) call of the model computes."""
    numbers, after = [], model.prefix_cache.after

    def counted(prompts):
        numbers.append(prompts.shape[0])
        return after(prompts)

    model.prefix_cache.after = counted
    return numbers


@pytest.mark.parametrize(("num_tasks", "task_ids"), [(3, [0, 2, 2, 0, 0]), (300, [7, 7, 7, 9, 7])])
def test_no_more_prompts_run_than_the_batch_needs(num_tasks, task_ids):
    model = make("auto", num_tasks)
    numbers = prompts_of_steps(model)
    x, _ = data(num_tasks, rows=5)
    x["task_ids"] = np.array(task_ids)
    model(x)  # Ids that can be seen.
    assert numbers == [2]
    numbers.clear()
    model.predict(x, verbose=0)
    # A compiled step has fixed shapes: all of three tasks, of 300 as many as it has rows. So it
    # saves nothing with 300, and the splice is taken where the number of rows is known.
    assert set(numbers) <= ({2} if BACKEND == "torch" else {3, None} if num_tasks == 3 else {None})


def test_the_most_different_tasks_in_a_compiled_step():
    """With sharing forced, as many prompts as rows; and each row gets its own."""
    model, other = make(True, 20), make(False, 20)
    numbers = prompts_of_steps(model)
    x, _ = data(20, rows=6)
    x["task_ids"] = np.array([19, 3, 3, 0, 19, 7])
    found, expected = (m.predict(x, verbose=0) for m in (model, other))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert set(numbers) <= ({4} if BACKEND == "torch" else {6, None})


def compiled(model):
    """The model's call, where ids cannot be seen before it runs."""
    if BACKEND == "jax":
        import jax

        return jax.jit(model)
    import tensorflow as tf

    return tf.function(model)


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch runs eagerly: wrong ids are an error there")
@pytest.mark.parametrize("num_tasks", [2, 20])
def test_a_wrong_id_in_a_compiled_graph_is_nan_in_its_row_alone(num_tasks):
    calls = [compiled(make(share_prompts, num_tasks)) for share_prompts in (True, False)]
    x, _ = data(num_tasks, rows=4)
    x = {name: ops.convert_to_tensor(v, "int32") for name, v in x.items()}
    for wrong in (num_tasks, -1, 256):
        x["task_ids"] = ops.convert_to_tensor([1, wrong, 0, 1], "int32")
        logits, expected = (ops.convert_to_numpy(call(x)) for call in calls)
        assert np.isnan(logits[1]).all()
        np.testing.assert_array_equal(np.isnan(logits), np.isnan(expected))
        keep = [0, 2, 3]
        np.testing.assert_allclose(logits[keep], expected[keep], atol=1e-5)


@slow_on_jax
def test_dropout_is_active_in_training_alone():
    model = make(True, dropout=0.5)
    x, _ = data()
    first, second = (ops.convert_to_numpy(model(x, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    still, again = (ops.convert_to_numpy(model(x, training=False)) for _ in range(2))
    np.testing.assert_array_equal(still, again)
    # Rows of one task have their prompt, and what is dropped in it, in common.
    numbers = prompts_of_steps(model)
    twice = {name: np.repeat(v[:1], 2, 0) for name, v in x.items()}
    model(twice, training=True)
    assert numbers == [1]


@only_eager
def test_half_precision():
    backbone = tiny.backbone("gpt2", dtype="bfloat16", dropout=0.0)
    x, y = data()
    found = [run(make(s, backbone=backbone), x, y) for s in (True, False)]
    assert found[0][2].dtype == found[1][2].dtype
    # bfloat16 has 8 bits: two orders of the same sums differ by a few thousandths of the largest.
    largest = np.abs(found[1][2].astype("float32")).max()
    difference = np.abs(found[0][2].astype("float32") - found[1][2].astype("float32"))
    assert difference.max() < 0.03 * largest
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=0.01)


@slow_on_tensorflow
def test_layers_that_are_run_again_for_their_gradient():
    """`keras.RematScope`, under which a backbone is made, saves memory and changes no number."""
    # In the mode "full", Keras 3.15 fails on JAX with any layer that takes a `bool`, on TensorFlow
    # with any that is called by keywords: with the bare backbone as well.
    with keras.RematScope(mode="full" if BACKEND == "torch" else "activations"):
        backbone = tiny.backbone("gpt2", dropout=0.0)
    x, y = data()
    expected = run(make(True), x, y)
    weights, losses, logits = run(make(True, backbone=backbone), x, y)
    for value, other in zip(weights, expected[0], strict=True):
        np.testing.assert_allclose(value, other, atol=2e-6)
    np.testing.assert_allclose(losses, expected[1], rtol=1e-6)
    np.testing.assert_allclose(logits, expected[2], atol=1e-5)


@slow_on_jax
def test_where_it_is_not_exact_the_splice_is_taken():
    for family in ("GPT-NeoX", "Falcon"):
        model = make("auto", backbone=FAMILIES[family].build())
        other = make(False, backbone=model.backbone)
        x, _ = data()
        np.testing.assert_array_equal(*(ops.convert_to_numpy(m(x)) for m in (model, other)))
        with pytest.raises(ValueError, match=r"`share_prompts` should be 'auto' or False where"):
            make(True, backbone=FAMILIES[family].build())
    with pytest.raises(ValueError, match=r"Received: share_prompts='always'"):
        make("always")


@pytest.mark.skipif(BACKEND == "jax", reason="it compiles for long; run on the other two")
def test_positions_of_the_user_s_own():
    model = make("auto", backbone=FAMILIES["Gemma 4"].build())
    other = make(False, backbone=model.backbone)
    x, _ = data()
    plain = ops.convert_to_numpy(model(x))
    x["position_ids"] = np.tile(np.arange(6) * 2 + 1, (8, 1))
    found, expected = (ops.convert_to_numpy(m(x)) for m in (model, other))
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - plain).max() > 1e-3 * np.abs(plain).max()


def test_a_prompt_after_the_start_token():
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=LENGTH, num_tasks=3, prompt_position="after_start"
    )
    model = keras_mpt.models.PromptTunedCausalLM(tiny.backbone("gpt2"), config)
    assert not model.keeps_cache
    model.compile(sampler="greedy")
    ids = np.array([[5, 6, 7, 0, 0, 0], [4, 3, 0, 0, 0, 0]])
    made = model.generate(
        {"token_ids": ids, "padding_mask": ids != 0}, task_ids=[0, 2], stop_token_ids=None
    )
    x = {"token_ids": made["token_ids"], "padding_mask": np.ones_like(ids), "task_ids": [0, 2]}
    likeliest = ops.convert_to_numpy(model(x)).argmax(axis=-1)
    np.testing.assert_array_equal(made["token_ids"][:, 3:], likeliest[:, 2:-1])


def test_it_is_saved_and_folded(tmp_path):
    model = make(False)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").share_prompts is False
    assert model.fold(1).share_prompts is False
    task = keras_hub.models.GPT2CausalLM(backbone=tiny.backbone("gpt2"), preprocessor=None)
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=LENGTH)
    assert keras_mpt.prompt_tune(task, config).share_prompts == "auto"
