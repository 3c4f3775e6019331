"""Models whose frozen weights oneDNN multiplies, against the same models without."""

import keras
import numpy as np
import pytest

import keras_mpt
from keras_mpt.splicing import frozen_products as products
from tests import tiny
from tests.marks import IS_EAGER, only_torch

pytestmark = only_torch
if IS_EAGER:
    import torch

    from tests.splicing.test_frozen_products import numbers


def model_of(kind, seed=0, **kwargs):
    keras.utils.set_random_seed(seed)
    backbone = tiny.with_large_weights(tiny.backbone(kind, dropout=0.0))
    kinds = {"gpt2": "CAUSAL_LM", "llama": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM"}
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=kinds.get(kind, "SEQ_CLS"), num_virtual_tokens=3, num_tasks=2, seed=0
    )
    if kind not in kinds:
        kwargs["num_classes"] = 3
    model = keras_mpt.prompt_tune(backbone, config, **kwargs)
    model.compile(keras.optimizers.Adam(0.01))
    x = {**tiny.inputs(backbone), "task_ids": np.array([0, 1, 1, 0])}
    y = np.array([0, 1, 2, 1]) if "num_classes" in kwargs else np.arange(24).reshape(4, 6)
    return model, x, y


@pytest.mark.parametrize("kind", ["bert", "albert", "gpt2", "llama", "t5"])
def test_models_train_to_the_same_weights(made, monkeypatch, kind):
    found, counts = [], []
    for is_of_use in (True, False):
        monkeypatch.setattr(products, "are_of_use", lambda value=is_of_use: value)
        model, x, y = model_of(kind)
        before = [v.numpy().copy() for v in model.backbone.weights]
        losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
        for value, old in zip(model.backbone.weights, before, strict=True):
            np.testing.assert_array_equal(value.numpy(), old)
        weights = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
        found.append((losses, model.predict(x, verbose=0), weights))
        counts.append(len(made))
    assert counts[0] == counts[1] > 50
    (losses, outputs, weights), (other_losses, other_outputs, others) = found
    np.testing.assert_allclose(losses, other_losses, rtol=1e-5)
    np.testing.assert_allclose(outputs, other_outputs, rtol=1e-4, atol=1e-4)
    for value, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-4)


def test_what_a_user_runs_in_a_callback_is_pytorchs_own(made):
    model, x, y = model_of("bert")
    seen = []

    def ask(*_, **__):
        before = len(made)
        torch.matmul(numbers(3, 4), numbers(4, 5))
        seen.append(len(made) - before)

    call = keras.callbacks.LambdaCallback(on_train_batch_end=ask)
    model.fit(x, y, callbacks=[call], verbose=0)
    assert seen == [0] and len(made) > 10


@pytest.mark.parametrize("remat", [True, "scope"])
def test_blocks_that_run_once_more(made, monkeypatch, remat):
    gradients, counts = [], []
    for is_of_use in (True, False):
        monkeypatch.setattr(products, "are_of_use", lambda value=is_of_use: value)
        scope = keras.RematScope(mode="full" if remat == "scope" else None)
        with scope:
            model, x, y = model_of("gpt2", **({} if remat == "scope" else {"remat": True}))
        # A loop of one's own: on the way back nothing of ours is around.
        logits = model(x, training=True)
        loss = keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)
        loss.sum().backward()
        gradients.append([v.value.grad.numpy() for v in model.trainable_variables])
        counts.append(len(made))
    # Of Keras's own scope PyTorch must see the same on the way back, where none of this is.
    assert counts[0] == counts[1]
    assert (counts[0] > 10) is (remat is True)
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_it_generates_the_same_tokens(made, monkeypatch):
    tokens, counts = [], []
    for is_of_use in (True, False):
        monkeypatch.setattr(products, "are_of_use", lambda value=is_of_use: value)
        model, x, _ = model_of("gpt2")
        room = np.zeros((4, 6), "int32")
        x = {name: x[name] if x[name].ndim == 1 else np.hstack([x[name], room]) for name in x}
        for _ in range(4):  # As it is at first, then recorded, compared and replayed.
            found = model.generate(x, stop_token_ids=None)
        tokens.append(found["token_ids"])
        counts.append(len(made))
    assert counts[0] == counts[1] > 10
    np.testing.assert_array_equal(*tokens)


def test_exports_hold_nothing_of_it(made, tmp_path):
    model, x, _ = model_of("bert")
    model(x)
    assert made
    made.clear()
    model.export(tmp_path / "model.pt2", format="torch", verbose=False)
    assert made == []
