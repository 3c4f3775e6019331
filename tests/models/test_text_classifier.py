"""The classifier: its heads, its pooling, and what is trained."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.heads.pooling import mean_over_tokens
from tests import tiny
from tests.marks import slow_on_jax

NAMES, CLASSES, TASK_IDS = ["tone", "topic"], [2, 3], np.array([0, 1, 1, 0])


def config(**kwargs):
    """Two named tasks whose prompts differ."""
    defaults = {"task_type": "SEQ_CLS", "num_virtual_tokens": 3, "num_tasks": 2}
    defaults |= {"task_names": NAMES, "task_init": "normal"}
    return keras_mpt.MultitaskPromptTuningConfig(**defaults | kwargs)


def numpy(x):
    """A tensor as a NumPy array."""
    return ops.convert_to_numpy(x)


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
    hidden.prompt.set_peft_state_dict(model.prompt.get_peft_state_dict())
    states = numpy(hidden({**x, "task_ids": TASK_IDS})["sequence_output"]).astype("float64")
    mask = x["padding_mask"][:, :, None]
    mean = (states * mask).sum(axis=1) / mask.sum(axis=1)
    pooled = mean_over_tokens(ops.convert_to_tensor(states), x["padding_mask"])
    np.testing.assert_allclose(numpy(pooled), mean, atol=1e-6)
    expected = numpy(model.logits(mean.astype("float32"), TASK_IDS))
    np.testing.assert_allclose(numpy(model({**x, "task_ids": TASK_IDS})), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("num_classes", [CLASSES, 4], ids=["heads", "shared"])
def test_base_pooling_in_numpy(kind, num_classes):
    """BERT classifies its pooled output; RoBERTa its start token after a layer of its own."""
    backbone = tiny.backbone(kind)
    model = keras_mpt.prompt_tune(backbone, config(), num_classes=num_classes)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    hidden = keras_mpt.models.PromptTunedBackbone(backbone, model.config, initialize=False)
    hidden.prompt.set_peft_state_dict(model.prompt.get_peft_state_dict())
    x = {**tiny.inputs(backbone), "task_ids": TASK_IDS}
    outputs = hidden(x)
    weights = {k: numpy(v).astype("float64") for k, v in model.head.weights().items()}
    last = "base_model.classifier"
    if kind == "bert":
        pooled = numpy(outputs["pooled_output"]).astype("float64")
    else:
        name, last = f"{last}.dense", f"{last}.out_proj"
        start = numpy(outputs)[:, 0].astype("float64")
        pooled = np.tanh(start @ weights[f"{name}.weight"] + weights[f"{name}.bias"])
    logits = pooled @ weights[f"{last}.weight"] + weights[f"{last}.bias"]
    if num_classes == CLASSES:
        tone = np.concatenate([logits[:, :2], np.full((4, 1), -1e9)], axis=1)
        logits = np.where(TASK_IDS[:, None] == 0, tone, logits[:, 2:])
    np.testing.assert_allclose(numpy(model(x)), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_classifier_s_own_head_is_kept(kind):
    """With the prompt of real tokens, logits are those of keras-hub's own classifier."""
    backbone = tiny.backbone(kind)
    task = {"bert": "BertTextClassifier", "roberta": "RobertaTextClassifier"}[kind]
    classifier = getattr(keras_hub.models, task)(backbone, num_classes=3, dropout=0.2)
    model = keras_mpt.prompt_tune(classifier, config(task_init="ones"))
    assert (model.num_classes, model.head_config["dropout"]) == (3, 0.2)
    ids = np.array([5, 6, 7])
    state = model.prompt.get_peft_state_dict()
    state["prompt_embeddings"] = numpy(model.splice.embed_tokens(ids))
    model.prompt.set_peft_state_dict(state)
    x = tiny.inputs(backbone)
    longer = {k: np.concatenate([v[:, :1], np.ones((4, 3), v.dtype), v[:, 1:]], axis=1)
              for k, v in x.items()}  # fmt: skip
    longer["token_ids"][:, 1:4] = ids
    if "segment_ids" in longer:
        longer["segment_ids"][:, 1:4] = 0
    np.testing.assert_allclose(
        numpy(model({**x, "task_ids": TASK_IDS})), numpy(classifier(longer)), atol=1e-6
    )


def test_training_learns_what_depends_on_token_and_task():
    """The same text has another label in each task."""
    backbone = tiny.backbone("bert", dropout=0.0)
    model = keras_mpt.prompt_tune(
        backbone, config(task_init="ones"), num_classes=[2, 2], pooling="mean"
    )
    frozen = [numpy(v) for v in backbone.weights]
    before = {v.path: numpy(v) for v in model.trainable_variables}
    ids = np.repeat([[2, 10, 3], [2, 20, 3]], 2, axis=0)
    x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "task_ids": np.array([0, 1, 0, 1])}
    y = np.array([0, 1, 1, 0])
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    losses = model.fit(x, y, epochs=60, verbose=0).history["loss"]
    assert losses[0] > 0.5 > 0.1 > losses[-1]
    assert (model.predict(x, verbose=0).argmax(axis=-1) == y).all()
    for variable, value in zip(backbone.weights, frozen, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
    assert {v.path: (numpy(v) != before[v.path]).any() for v in model.trainable_variables} == {
        "prompt/prompt_embeddings": True,
        "prompt/prefix_task_cols": True,
        "prompt/prefix_task_rows": True,
        "logits/kernel": True,
        "logits/bias": True,
    }


def test_inference_mode_freezes_the_prompt():
    model = keras_mpt.prompt_tune(tiny.backbone(), config(inference_mode=True), num_classes=2)
    assert [v.path for v in model.trainable_variables] == ["logits/kernel", "logits/bias"]


@slow_on_jax
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


def test_a_saved_adapter_loads_onto_a_keras_hub_classifier(tmp_path):
    backbone = tiny.backbone("roberta")
    model = keras_mpt.prompt_tune(backbone, config(), num_classes=CLASSES)
    model.save_adapter(tmp_path)
    classifier = keras_hub.models.RobertaTextClassifier(backbone, num_classes=4)
    x = {**tiny.inputs(backbone), "task_ids": TASK_IDS}
    loaded = keras_mpt.load_adapter(classifier, tmp_path)
    np.testing.assert_array_equal(numpy(loaded(x)), numpy(model(x)))
    means = keras_mpt.prompt_tune(classifier, config(), num_classes=CLASSES, pooling="mean")
    assert means.pooling == "mean"
