"""Blocks that run once more on the way back, against blocks that keep what is within them."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.marks import only_eager

X = {
    "token_ids": np.array([[3, 4, 5, 6], [5, 6, 7, 1], [9, 8, 2, 1]]),
    "padding_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]),
    "task_ids": np.array([0, 2, 0]),
}
Y = np.array([[4, 5, 6, 7], [6, 7, 8, 0], [8, 2, 3, 0]])
# All targets, and as many as a text has that is answered by a word.
WEIGHTS = {"all": X["padding_mask"] * 1.0, "one": np.eye(4)[[3, 2, 1]]}


def make(remat, kind="gpt2", **kwargs):
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=3, seed=0)
    backbone = tiny.with_large_weights(tiny.backbone(kind, dropout=0.0))
    model = keras_mpt.models.PromptTunedCausalLM(backbone, config, remat=remat, **kwargs)
    model.compile(keras.optimizers.Adam(0.01))
    return model


@pytest.mark.parametrize(
    ("kind", "counted"),
    [
        *(("gpt2", "one"), ("llama", "all")),
        *(pytest.param(*of, marks=only_eager) for of in (("gpt2", "all"), ("llama", "one"))),
    ],
)
def test_it_trains_to_the_same_weights(kind, counted):
    weights, losses = [], []
    for remat in (0.5 if counted == "all" else True, False):
        model = make(remat, kind)
        history = model.fit(X, Y, sample_weight=WEIGHTS[counted], epochs=5, verbose=0)
        losses.append(history.history["loss"])
        weights.append([ops.convert_to_numpy(v) for v in model.trainable_variables])
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert losses[0][-1] < losses[0][0]
    for value, other in zip(*weights, strict=True):
        np.testing.assert_allclose(value, other, atol=2e-6)


@only_eager
def test_blocks_run_once_more_in_training_alone(monkeypatch):
    layer_class = type(tiny.backbone("gpt2").transformer_layers[0])
    calls, call = [], layer_class.call

    @functools.wraps(call)
    def counted(self, decoder_sequence, *args, **kwargs):
        calls.append(decoder_sequence.shape[1])
        return call(self, decoder_sequence, *args, **kwargs)

    monkeypatch.setattr(layer_class, "call", counted)
    of_text = []
    for remat in (True, 0.5, False):
        model = make(remat)
        model.fit(X, Y, verbose=0)  # Builds what is not built yet.
        for run in (model.train_on_batch, model.test_on_batch):
            calls.clear()
            run(X, Y)
            of_text.append(calls.count(4))
    train, test, half_train, half_test, plain_train, plain_test = of_text
    assert plain_train == len(tiny.backbone("gpt2").transformer_layers) == 2
    assert (train, half_train) == (4, 3)
    assert test == half_test == plain_test == plain_train


def test_it_is_saved_and_folded(tmp_path):
    model = make(True)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").remat is True
    assert model.fold(1).remat is True
    assert make(False).remat is False
    half = make(0.5)
    half.save(tmp_path / "half.keras")
    assert keras.saving.load_model(tmp_path / "half.keras").remat == 0.5


def test_where_it_cannot_be():
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=3)
    with pytest.raises(
        ValueError, match=r"`remat` should be False where blocks drop out.*=0\.0.*d: remat=T"
    ):
        keras_mpt.models.PromptTunedCausalLM(tiny.backbone("gpt2", dropout=0.1), config, remat=True)
    message = r"`remat` should be False where prompts cannot be shared.*share_prompts=False"
    with pytest.raises(ValueError, match=message):
        make(True, share_prompts=False)
    for remat in (1, 0, 2, 1.0, 0.0, -0.5, float("nan"), "all", None):
        message = f"`remat` should be True or False, or a float .* Received: remat={remat!r}"
        with pytest.raises(ValueError, match=message):
            make(remat)
