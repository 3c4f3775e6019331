"""The classifier: its heads, its pooling, text, and what it reports of each task."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import keras_mpt
from keras_mpt.models.prompt_tuned_text_classifier import mean_over_tokens
from tests import tiny

NAMES, CLASSES, TASK_IDS = ["tone", "topic"], [2, 3], np.array([0, 1, 1, 0])
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "goal", "vote", "the"]


def config(**kwargs):
    """Two named tasks whose prompts differ."""
    defaults = {"task_type": "SEQ_CLS", "num_virtual_tokens": 3, "num_tasks": 2}
    defaults |= {"task_names": NAMES, "task_init": "normal"}
    return keras_mpt.MultitaskPromptTuningConfig(**defaults | kwargs)


def numpy(x):
    """A tensor as a NumPy array."""
    return ops.convert_to_numpy(x)


def row_losses(logits, labels):
    """Cross-entropy of each row, in float64."""
    logits = logits.astype("float64")
    logits = logits - logits.max(axis=-1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(len(labels)), labels]


def test_task_heads_by_hand():
    heads = keras_mpt.models.TaskHeads(CLASSES)
    features = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    heads(features, TASK_IDS)
    heads.bias.assign(np.arange(5.0))
    full = features.astype("float64") @ numpy(heads.kernel) + np.arange(5.0)
    found = numpy(heads(features, TASK_IDS))
    assert heads.kernel.shape == (8, 5)
    for row, task in enumerate(TASK_IDS):
        own = full[row, :2] if task == 0 else full[row, 2:]
        np.testing.assert_allclose(found[row, : len(own)], own, atol=1e-5)
        assert (found[row, len(own) :] == -1e9).all()


def test_mean_leaves_prompts_and_padding_out():
    backbone = tiny.backbone("bert")
    model = keras_mpt.prompt_tune(backbone, config(), num_classes=CLASSES, pooling="mean")
    x = tiny.inputs(backbone)
    hidden = keras_mpt.models.PromptTunedBackbone(backbone, model.config, initialize=False)
    hidden.prompt.load_state_dict(model.prompt.state_dict())
    states = numpy(hidden({**x, "task_ids": TASK_IDS})["sequence_output"]).astype("float64")
    mask = x["padding_mask"][:, :, None]
    mean = (states * mask).sum(axis=1) / mask.sum(axis=1)
    pooled = mean_over_tokens(ops.convert_to_tensor(states), x["padding_mask"])
    np.testing.assert_allclose(numpy(pooled), mean, atol=1e-6)
    expected = numpy(model.logits(mean.astype("float32"), TASK_IDS))
    np.testing.assert_allclose(numpy(model({**x, "task_ids": TASK_IDS})), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_classifier_s_own_head_is_kept(kind):
    """With the prompt of real tokens, logits are those of keras-hub's own classifier."""
    backbone = tiny.backbone(kind)
    task = {"bert": "BertTextClassifier", "roberta": "RobertaTextClassifier"}[kind]
    classifier = getattr(keras_hub.models, task)(backbone, num_classes=3, dropout=0.2)
    model = keras_mpt.prompt_tune(classifier, config(task_init="ones"))
    assert (model.num_classes, model.head_config["dropout"]) == (3, 0.2)
    ids = np.array([5, 6, 7])
    state = model.prompt.state_dict()
    state["prompt_embeddings"] = numpy(model.splice.embed_tokens(ids))
    model.prompt.load_state_dict(state)
    x = tiny.inputs(backbone)
    longer = {k: np.concatenate([v[:, :1], np.ones((4, 3), v.dtype), v[:, 1:]], axis=1)
              for k, v in x.items()}  # fmt: skip
    longer["token_ids"][:, 1:4] = ids
    if "segment_ids" in longer:
        longer["segment_ids"][:, 1:4] = 0
    np.testing.assert_allclose(
        numpy(model({**x, "task_ids": TASK_IDS})), numpy(classifier(longer)), atol=1e-6
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_each_task_s_loss_and_accuracy_in_numpy(weighted):
    backbone = tiny.backbone("bert", dropout=0.0)
    model = keras_mpt.prompt_tune(backbone, config(), num_classes=CLASSES, pooling="mean")
    x, y = {**tiny.inputs(backbone), "task_ids": TASK_IDS}, np.array([1, 2, 0, 0])
    weights = np.array([1.0, 2.0, 0.5, 3.0]) if weighted else None
    model.compile(weighted_metrics=["accuracy"], metrics=[])
    logits = model.predict(x, verbose=0)
    found = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    losses, right = row_losses(logits, y), logits.argmax(axis=-1) == y
    weights = np.ones(4) if weights is None else weights
    for k, name in enumerate(NAMES):
        rows = k == TASK_IDS
        # Keras divides a weighted loss by the number of rows, a weighted metric by the weights.
        loss = (losses * weights)[rows].sum() / rows.sum()
        accuracy = (right * weights)[rows].sum() / weights[rows].sum()
        np.testing.assert_allclose(found[f"{name}_loss"], loss, rtol=1e-5)
        np.testing.assert_allclose(found[f"{name}_accuracy"], accuracy, rtol=1e-5)


def test_a_task_without_rows_reports_nan_and_fit_reports_all():
    backbone = tiny.backbone("bert")
    model = keras_mpt.prompt_tune(backbone, config(), num_classes=CLASSES)
    x, y = {**tiny.inputs(backbone), "task_ids": "topic"}, np.array([1, 2, 0, 0])
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    assert np.isnan(found["tone_loss"])
    assert np.isnan(found["tone_accuracy"])
    np.testing.assert_allclose(found["topic_loss"], found["loss"], rtol=1e-6)
    logs = model.fit(x, y, validation_data=(x, y), verbose=0).history
    expected = {f"{p}{t}{m}" for p in ("", "val_") for t in ("", "tone_", "topic_")
                for m in ("loss", "accuracy")}  # fmt: skip
    assert set(logs) == expected


def test_many_tasks_are_not_reported_one_by_one():
    many = config(num_tasks=40, task_names=None)
    model = keras_mpt.prompt_tune(tiny.backbone(), many, num_classes=2)
    x = {**tiny.inputs(model.backbone), "task_ids": TASK_IDS}
    found = model.evaluate(x, np.zeros(4, int), verbose=0, return_dict=True)
    assert set(found) == {"loss", "accuracy"}


def test_training_learns_what_depends_on_token_and_task():
    """The same text has another label in each task."""
    backbone = tiny.backbone("bert", dropout=0.0)
    model = keras_mpt.prompt_tune(
        backbone, config(task_init="ones"), num_classes=[2, 2], pooling="mean"
    )
    frozen = [numpy(v) for v in backbone.weights]
    ids = np.repeat([[2, 10, 3], [2, 20, 3]], 2, axis=0)
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": np.array([0, 1, 0, 1])}
    y = np.array([0, 1, 1, 0])
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    losses = model.fit(x, y, epochs=60, verbose=0).history["loss"]
    assert losses[0] > 0.5 > 0.1 > losses[-1]
    assert (model.predict(x, verbose=0).argmax(axis=-1) == y).all()
    for variable, value in zip(backbone.weights, frozen, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


def test_inference_mode_freezes_the_prompt():
    model = keras_mpt.prompt_tune(tiny.backbone(), config(inference_mode=True), num_classes=2)
    assert [v.path for v in model.trainable_variables] == ["logits/kernel", "logits/bias"]


@pytest.fixture(scope="module")
def reader():
    """A classifier that takes text."""
    tokenizer = keras_hub.tokenizers.BertTokenizer(WORDS, lowercase=True)
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=8)
    return keras_mpt.prompt_tune(
        tiny.backbone(), config(), num_classes=CLASSES, preprocessor=preprocessor
    )


TEXTS = ["good the goal", "bad", "the vote", "vote vote good"]


@pytest.mark.parametrize("pairs", [False, True])
def test_text_is_the_same_as_its_tokens(reader, pairs):
    text = (TEXTS, TEXTS[::-1]) if pairs else TEXTS
    tokens = {k: np.asarray(v) for k, v in reader.preprocessor(x=text).items()}
    expected = reader.predict({**tokens, "task_ids": TASK_IDS}, verbose=0)
    x = {"text": text, "task_ids": [NAMES[k] for k in TASK_IDS]}
    np.testing.assert_array_equal(reader.predict(x, verbose=0), expected)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(4)
    np.testing.assert_array_equal(reader.predict(dataset, verbose=0), expected)
    y = np.array([1, 2, 0, 0])
    assert np.isfinite(reader.fit(x, y, verbose=0).history["loss"][0])


def test_text_through_a_task_mix(reader):
    datasets = {"tone": (TEXTS[:2], [0, 1]), "topic": (TEXTS[2:], [2, 0])}
    logs = reader.fit(keras_mpt.TaskMix(datasets, batch_size=2), epochs=2, verbose=0).history
    assert np.isfinite(logs["tone_loss"] + logs["topic_loss"]).all()


def test_half_precision_backbone_gives_float32_logits_and_trains():
    backbone = tiny.backbone("bert", dtype="bfloat16")
    model = keras_mpt.prompt_tune(backbone, config(), num_classes=CLASSES)
    x, y = {**tiny.inputs(backbone), "task_ids": TASK_IDS}, np.array([1, 2, 0, 0])
    assert model.predict(x, verbose=0).dtype == "float32"
    losses = model.fit(x, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_one_ordinary_prompt():
    ordinary = keras_mpt.PromptTuningConfig(num_virtual_tokens=3)
    model = keras_mpt.prompt_tune(
        tiny.backbone(), keras_mpt.PromptTuningConfig(num_virtual_tokens=3, task_type="SEQ_CLS"),
        num_classes=3,
    )  # fmt: skip
    assert model.predict(tiny.inputs(model.backbone), verbose=0).shape == (4, 3)
    with pytest.raises(ValueError, match="`num_classes` should have one entry per task"):
        keras_mpt.models.PromptTunedTextClassifier(tiny.backbone(), ordinary, num_classes=[2])


def test_a_single_task_trains():
    """On PyTorch, Keras finds shapes with ids of 1, which this model does not have."""
    model = keras_mpt.prompt_tune(
        tiny.backbone(), config(num_tasks=1, task_names=None), num_classes=[2]
    )
    x = {**tiny.inputs(model.backbone), "task_ids": 0}
    assert np.isfinite(model.fit(x, np.array([0, 1, 1, 0]), verbose=0).history["task_0_loss"][0])
