"""Batches of like length without their padding: the same losses, gradients and trained values."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.arrays import up_to_few
from keras_mpt.fitting.preparation import preparation_of
from tests import tiny
from tests.marks import only_eager, only_torch
from tests.models.test_classifier_text import reader
from tests.models.test_masked_lm import make as masked_lm

WIDTH, NAMES = 24, ["a", "b"]
KINDS = {
    "SEQ_CLS": ("plain", {"num_classes": [2, 3]}),
    "TOKEN_CLS": ("plain", {"num_classes": 3}),
    "QUESTION_ANS": ("plain", {}),
    "CAUSAL_LM": ("gpt2", {}),
    "SEQ_2_SEQ_LM": ("t5", {}),
    "FEATURE_EXTRACTION": ("plain", {}),
}
SHORT, LONG = [3, 12, 7, 9], [21, 24, 18, 20]


def make(kind, **compiled):
    """A model of two tasks whose prompts matter, and its start."""
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=kind, num_virtual_tokens=3, num_tasks=2, task_names=NAMES
    )
    backbone, arguments = KINDS[kind]
    dropout = {} if backbone == "plain" else {"dropout": 0.0}
    backbone = tiny.with_large_weights(tiny.backbone(backbone, **dropout))
    model = keras_mpt.prompt_tune(backbone, config, **arguments)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    compiled = {"optimizer": keras.optimizers.SGD(0.1), **compiled}
    model.compile(**compiled, jit_compile=keras.backend.backend() == "jax")
    return model, values(model)


def values(model):
    """The trained variables' values."""
    return [ops.convert_to_numpy(v) for v in model.trainable_variables]


def reset(model, start):
    """Back to the start."""
    for variable, value in zip(model.trainable_variables, start, strict=True):
        variable.assign(value)


def rows(model, kind):
    """Short and long rows of each task, `WIDTH` wide, with their targets and weights."""
    found = {}
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        sizes = np.array([*SHORT, *LONG])
        mask = (np.arange(WIDTH) < sizes[:, None]).astype("int32")
        x = tiny.inputs(model.backbone, rows=len(sizes), length=WIDTH, seed=seed)
        for mask_name in [n for n in x if n.endswith("padding_mask")]:
            x[mask_name] = mask
        shape = {"SEQ_CLS": (8,), "QUESTION_ANS": (8, 2)}.get(kind, mask.shape)
        y = rng.integers(0, 2, shape)
        if kind == "QUESTION_ANS":
            y[:, 1] = sizes - 1
        if kind == "FEATURE_EXTRACTION":
            y = rng.normal(size=(*mask.shape, tiny.WIDTH))
        weight = rng.uniform(0.5, 1.5, mask.shape).astype("float32") * mask
        has_weights = kind in ("CAUSAL_LM", "SEQ_2_SEQ_LM")
        found[name] = (x, y, weight) if has_weights else (x, y)
    return found


def mix_of(data, **kwargs):
    """Half of an epoch's batches hold short rows, the others long ones."""
    return keras_mpt.TaskMix(data, 4, seed=2, **{"bucket_by_length": True, **kwargs})


def cut(model, mix):
    """A mix's batches as `fit` trains on them."""
    prepared, _, _ = model.prepared(mix)
    prepared[0]  # On TensorFlow the first one is made for Keras to look at.
    return prepared


def widths(stream):
    """How wide each token input of each batch is."""
    batches = [stream[i][0] for i in range(stream.num_batches)]
    return [tuple(v.shape[1] for n, v in x.items() if n.endswith("token_ids")) for x in batches]


@pytest.mark.parametrize(
    "kind",
    ["SEQ_CLS", *(pytest.param(k, marks=only_eager) for k in [*KINDS][1:-1])],
)
def test_a_step_is_that_of_the_same_rows_padded_longer(kind):
    model, start = make(kind)
    mix = mix_of(rows(model, kind))
    prepared = cut(model, mix)
    assert {width for found in widths(prepared) for width in found} == {16, WIDTH}
    short = next(i for i, found in enumerate(widths(prepared)) if found[0] == 16)
    logs, after = [], []
    for x, *targets in (prepared[short], mix[short]):
        reset(model, start)
        logs.append(model.train_on_batch(x, *targets, return_dict=True))
        after.append(values(model))
    assert {"loss", "a_loss", "b_loss"} <= set(logs[0]) == set(logs[1])
    for name, value in logs[0].items():
        np.testing.assert_allclose(value, logs[1][name], rtol=1e-6, err_msg=name)
    moved = [not np.array_equal(a, b) for a, b in zip(after[1], start, strict=True)]
    assert sum(moved) >= 3  # The prompt and both factors, at least.
    for found, full in zip(*after, strict=True):
        np.testing.assert_allclose(found, full, rtol=0, atol=1e-6)


def test_fit_and_evaluate_on_several_widths():
    """Two epochs and validation: what steps on uncut batches give."""
    model, start = make("SEQ_CLS")
    data = rows(model, "SEQ_CLS")
    mix, by_hand = mix_of(data), mix_of(data)
    assert len(set(widths(cut(model, mix)))) == 2
    for epoch in range(2):
        by_hand.start_at(epoch)
        for i in range(len(by_hand)):
            model.train_on_batch(*by_hand[i])
    expected = values(model)
    tested = model.evaluate(mix_of(data, bucket_by_length=False), verbose=0)

    reset(model, start)
    history = model.fit(mix, epochs=2, validation_data=mix_of(data), verbose=0).history
    for found, wanted in zip(values(model), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    np.testing.assert_allclose(history["val_loss"][-1], tested[0], rtol=1e-6)
    np.testing.assert_allclose(model.evaluate(mix_of(data), verbose=0), tested, rtol=1e-6)


@only_torch
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_run_that_was_cut_short_ends_as_an_unbroken_one():
    model, start = make("SEQ_CLS")
    data = rows(model, "SEQ_CLS")
    model.fit(mix_of(data), epochs=2, verbose=0)
    expected = values(model)
    reset(model, start)
    first, rest = mix_of(data), mix_of(data)
    for i in range(3):
        model.train_on_batch(*cut(model, first)[i])
    rest.start_at(0, 3)
    model.fit(rest, epochs=2, verbose=0)
    for found, wanted in zip(values(model), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@only_torch
@pytest.mark.parametrize(
    ("kind", "compiled", "without_weights"),
    [
        ("CAUSAL_LM", {}, True),  # Nothing says that targets at padding do not count.
        ("TOKEN_CLS", {"loss": "sparse_categorical_crossentropy"}, False),  # Over all positions.
        ("FEATURE_EXTRACTION", {"loss": "mse"}, False),  # Padding has features too.
    ],
)
def test_padding_that_has_a_part_in_the_loss_stays(kind, compiled, without_weights):
    model, _ = make(kind, **compiled)
    data = rows(model, kind)
    if without_weights:
        data = {name: (x, y) for name, (x, y, _) in data.items()}
    assert set(widths(cut(model, mix_of(data)))) == {(WIDTH,)}


@only_torch
def test_a_target_that_counts_beyond_a_row_s_end_is_not_cut():
    model, _ = make("CAUSAL_LM")
    data = rows(model, "CAUSAL_LM")
    for _, _, weight in data.values():
        weight[:, 19] = 1.0
    assert set(widths(cut(model, mix_of(data)))) == {(WIDTH,)}


@only_torch
def test_places_that_are_asked_for_keep_their_targets():
    _, model, _ = masked_lm()
    model.compile(keras.optimizers.SGD(0.1))
    x = {**tiny.inputs(model.backbone, rows=8, length=WIDTH), "mask_positions": np.ones((8, 2))}
    x["padding_mask"] = (np.arange(WIDTH) < np.array([[*SHORT, *LONG]]).T).astype("int32")
    x["mask_positions"] = x["mask_positions"].astype("int32")
    mix = mix_of(dict.fromkeys(NAMES, (x, np.full((8, 2), 7), np.ones((8, 2)))))
    prepared = cut(model, mix)
    assert set(widths(prepared)) == {(16,), (WIDTH,)}
    for i in range(len(mix)):
        found, wanted = (model.test_on_batch(*batch[i]) for batch in (prepared, mix))
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def with_router(weight):
    """A backbone of experts, whose balance is a loss over all positions."""
    return keras_hub.models.QwenMoeBackbone(
        **{"vocabulary_size": tiny.VOCABULARY, "num_layers": 1, "hidden_dim": tiny.WIDTH},
        **{"num_query_heads": 2, "num_key_value_heads": 1, "num_experts": 4, "top_k": 2},
        **{"intermediate_dim": 32, "moe_intermediate_dim": 16},
        **{"shared_expert_intermediate_dim": 16, "router_aux_loss_coefficient": weight},
    )


def with_regularizer():
    found = tiny.backbone("bert", dropout=0.0)
    found.get_layer("embeddings_layer_norm").activity_regularizer = keras.regularizers.L2(0.1)
    return found


@only_torch
@pytest.mark.parametrize(
    ("backbone", "is_cut"),
    [
        (lambda: with_router(0.5), False),
        (lambda: with_router(0.0), True),
        (with_regularizer, False),
        (lambda: tiny.backbone("bert", dropout=0.0), True),
    ],
)
def test_padding_stays_where_layers_add_losses(backbone, is_cut):
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=3, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.models.PromptTunedTokenClassifier(
        tiny.with_large_weights(backbone()), config, num_classes=3
    )
    model.compile(keras.optimizers.SGD(0.1))
    mix = mix_of(rows(model, "TOKEN_CLS"))
    prepared = cut(model, mix)
    assert ({width for found in widths(prepared) for width in found} == {WIDTH}) is not is_cut
    for i in range(len(mix)):
        found, wanted = (model.test_on_batch(*batch[i]) for batch in (prepared, mix))
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6)


class MeanOverAll(keras_mpt.models.PromptTunedTokenClassifier):
    """A loss of its own."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = keras.losses.sparse_categorical_crossentropy
        return ops.mean(loss(y, y_pred, from_logits=True))


class Inherited(MeanOverAll):
    """Has it from elsewhere."""


@only_torch
@pytest.mark.parametrize("cls", [MeanOverAll, Inherited])
def test_padding_stays_where_a_subclass_computes_the_loss(cls):
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=3, num_tasks=2, task_names=NAMES
    )
    model = cls(tiny.backbone("bert", dropout=0.0), config, num_classes=3)
    model.compile(keras.optimizers.SGD(0.1))
    mix = mix_of(rows(model, "TOKEN_CLS"))
    assert set(widths(cut(model, mix))) == {(WIDTH,)}
    found = [
        model.evaluate(mix_of(rows(model, "TOKEN_CLS"), bucket_by_length=of), verbose=0)[0]
        for of in (True, False)
    ]
    np.testing.assert_allclose(*found, rtol=1e-6)


@only_torch
@pytest.mark.parametrize(("most", "is_cut"), [(18, True), (19, False), (26, False), (27, True)])
def test_padding_stays_where_positions_are_turned_by_the_width(most, is_cut):
    """Rows are 16 tokens wide and 24 without a cut, behind 3 of a prompt."""
    backbone = keras_hub.models.Phi3Backbone(
        **{"vocabulary_size": tiny.VOCABULARY, "num_layers": 1, "hidden_dim": tiny.WIDTH},
        **{"num_query_heads": 2, "num_key_value_heads": 1, "intermediate_dim": 32},
        **{"rope_scaling_type": "su", "rope_scaling_short_factor": [1.0] * 4},
        **{"rope_scaling_long_factor": [4.0] * 4, "pretraining_sequence_length": most},
        max_sequence_length=64,
    )
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(tiny.with_large_weights(backbone), config)
    model.compile(keras.optimizers.SGD(0.1))
    mix = mix_of(rows(model, "CAUSAL_LM"))
    prepared = cut(model, mix)
    assert ((16,) in widths(prepared)) is is_cut
    for i in range(len(mix)):
        found, wanted = (model.test_on_batch(*batch[i]) for batch in (prepared, mix))
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-5)


@only_torch
def test_padding_on_the_left_stays():
    model, _ = make("CAUSAL_LM")
    data = rows(model, "CAUSAL_LM")
    for x, _, weight in data.values():
        x["padding_mask"] = x["padding_mask"][:, ::-1].copy()
        weight[:] = weight[:, ::-1].copy()
    assert set(widths(cut(model, mix_of(data)))) == {(WIDTH,)}


@only_torch
def test_a_decoder_s_padding_may_stay_where_the_encoder_s_goes():
    model, _ = make("SEQ_2_SEQ_LM")
    data = {name: (x, y) for name, (x, y, _) in rows(model, "SEQ_2_SEQ_LM").items()}
    assert set(widths(cut(model, mix_of(data)))) == {(WIDTH, 16), (WIDTH, WIDTH)}


@only_torch
def test_other_mixes_and_predictions_keep_their_width():
    model, _ = make("SEQ_CLS")
    data = rows(model, "SEQ_CLS")
    assert set(widths(cut(model, mix_of(data, bucket_by_length=False)))) == {(WIDTH,)}
    assert model.predict(mix_of(data), verbose=0).shape == (16, 3)


@only_torch
def test_processes_cut_their_parts_alike():
    """To the longest of the whole batch, which only one of them may have."""
    model, _ = make("CAUSAL_LM")
    data = rows(model, "CAUSAL_LM")
    whole = preparation_of(model)(mix_of(data))[0]
    parts = [preparation_of(model)(mix_of(data, shard=(i, 4)))[0] for i in range(4)]
    for step in range(whole.num_batches):
        x, y, weight = whole[step]
        found = [part[step] for part in parts]
        assert {part[1].shape for part in found} == {(1, y.shape[1])}
        np.testing.assert_array_equal(np.concatenate([part[1] for part in found]), y)
        np.testing.assert_array_equal(np.concatenate([part[2] for part in found]), weight)
        for name in x:
            together = np.concatenate([part[0][name] for part in found])
            np.testing.assert_array_equal(together, x[name])


def test_keras_sees_two_widths_on_tensorflow():
    """It takes the first two batches for the shapes of all."""
    model, _ = make("SEQ_CLS")
    mix = mix_of(rows(model, "SEQ_CLS"))
    wanted, seen = widths(cut(model, mix)), widths(preparation_of(model)(mix)[0])
    if keras.backend.backend() == "tensorflow":
        wanted[0] = (wanted[0][0] + 1,)
    assert seen == wanted


@only_torch
def test_text_of_classifiers_is_cut_as_its_tokens_are():
    model = reader("plain", "DistilBertTextClassifierPreprocessor", "DistilBertTokenizer")
    model.preprocessor.sequence_length = WIDTH
    texts = {"tone": (["good", "bad the", "the " * 18, "goal"], [0, 1, 0, 1]),
             "topic": (["vote " * 20, "the " * 19, "vote", "the " * 17], [0, 1, 2, 0])}  # fmt: skip
    mix = mix_of(texts)
    prepared = cut(model, mix)
    assert sorted(widths(prepared)) == [(16,), (WIDTH,)]
    for i in range(2):
        (x, y), (given, _) = prepared[i], mix[i]
        whole, _, _ = model.prepared(given, y)
        assert (whole["padding_mask"].sum(), given["text"].shape) == (x["padding_mask"].sum(), (4,))
        np.testing.assert_array_equal(
            whole["token_ids"][:, : x["token_ids"].shape[1]], x["token_ids"]
        )


def test_widths_are_few():
    found = sorted({up_to_few(width) for width in range(1, 513)})
    assert found == [16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512]
    assert all(width <= up_to_few(width) < max(width + 16, 1.25 * width) for width in range(1, 999))
