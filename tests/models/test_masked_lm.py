"""Masked language models: logits at the places asked for, their loss, and what is refused."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.models import PromptTunedMaskedLM
from keras_mpt.splicing.splice import token_table
from tests import tiny
from tests.marks import only_eager, only_torch

TASK_IDS = np.array([0, 1, 1, 0])
# Rows 1 and 3 are padded from 4 on; row 1 and row 2 ask for one token.
PLACES = np.array([[1, 5], [3, 0], [2, 0], [0, 3]])
WEIGHTS = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.5, 1.0]], "float32")
TOKENS = np.array([[7, 8], [9, 0], [4, 0], [3, 11]])


def make(config=None, kind="bert"):
    """keras-hub's model with random weights, head included, and a prompt-tuned one on it."""
    base = getattr(keras_hub.models, {"bert": "BertMaskedLM", "esm": "ESMMaskedPLM"}[kind])(
        tiny.backbone(kind, dropout=0.0)
    )
    rng = np.random.default_rng(0)
    for variable in base.weights:
        variable.assign(rng.normal(0, 0.3, variable.shape) + (variable.name == "gamma"))
    config = config or keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=2)
    model = keras_mpt.prompt_tune(base, config)
    x = {**tiny.inputs(model.backbone), "mask_positions": PLACES}
    if model.model_inputs.has_tasks:
        x["task_ids"] = TASK_IDS
        for variable in model.trainable_variables:
            variable.assign(rng.normal(size=variable.shape))
    return base, model, x


@pytest.mark.parametrize(
    ("kind", "position"), [("bert", "before"), ("bert", "after_start"), ("esm", "after_start")]
)
def test_a_prompt_of_real_tokens_gives_what_keras_hub_gives_with_these_tokens(kind, position):
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=3, prompt_position=position)
    base, model, x = make(config, kind)
    at, ids = {"before": 0, "after_start": 1}[position], np.array([5, 9, 11])
    table = token_table(model.splice.token_inputs[0].embedding)
    model.prompt.set_peft_state_dict({"prompt_embeddings": ops.convert_to_numpy(table(ids))})

    def longer(values, new):
        return np.insert(values, [at] * 3, new, axis=1)

    with_tokens = {"token_ids": longer(x["token_ids"], ids)}
    if kind == "bert":
        with_tokens["padding_mask"] = longer(x["padding_mask"], 1)
        with_tokens["segment_ids"] = longer(x["segment_ids"], 0)
    with_tokens["mask_positions"] = PLACES + 3 * (at <= PLACES)
    expected = base.predict(with_tokens, verbose=0)
    assert expected.shape == (4, 2, tiny.VOCABULARY)
    found = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_loss_and_accuracy_are_those_of_the_tokens_that_count():
    _, model, x = make()
    cross_entropy = keras.losses.SparseCategoricalCrossentropy
    model.compile(loss=cross_entropy(from_logits=True, reduction="mean_with_sample_weight"))
    logits = model.predict(x, verbose=0).astype("float64")
    own = np.take_along_axis(logits, TOKENS[..., None], axis=-1)[..., 0]
    losses = np.log(np.exp(logits).sum(-1)) - own
    logs = model.evaluate(x, TOKENS, sample_weight=WEIGHTS, return_dict=True, verbose=0)

    def mean(values, rows=slice(None)):
        return (values * WEIGHTS)[rows].sum() / WEIGHTS[rows].sum()

    is_right = logits.argmax(-1) == TOKENS
    assert logs["loss"] == pytest.approx(mean(losses), rel=1e-5)
    assert logs["task_1_loss"] == pytest.approx(mean(losses, TASK_IDS == 1), rel=1e-5)
    assert logs["accuracy"] == pytest.approx(mean(is_right))
    right = logits.argmax(-1)
    logs = model.evaluate(x, right, sample_weight=WEIGHTS, return_dict=True, verbose=0)
    assert (logs["accuracy"], logs["task_0_accuracy"]) == (1.0, 1.0)


def test_it_learns_saves_and_loads_and_nothing_else_changes(tmp_path):
    base, model, x = make()
    before = [ops.convert_to_numpy(w).copy() for w in base.weights]
    model.compile(keras.optimizers.Adam(0.2))
    logs = model.fit(x, TOKENS, sample_weight=WEIGHTS, epochs=30, verbose=0).history
    assert logs["loss"][-1] < 0.85 * logs["loss"][0]
    of_head = {id(v) for v in model.frozen_head.weights} - {id(v) for v in model.backbone.weights}
    assert len(of_head) == 5  # Dense and layer norm have two each, and the tokens a bias.
    ours = [*model.backbone.weights, *(v for v in model.frozen_head.weights if id(v) in of_head)]
    for old, theirs, own in zip(before, base.weights, ours, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(theirs), old)
        np.testing.assert_array_equal(ops.convert_to_numpy(own), old)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    for theirs, own in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(theirs), ops.convert_to_numpy(own))
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, atol=1e-5)
    model.save_adapter(tmp_path / "adapter")
    assert set(keras_mpt.read_state_dict(tmp_path / "adapter")) == {
        "prompt_embeddings", "prefix_task_cols", "prefix_task_rows",
    }  # fmt: skip
    adapted = keras_mpt.load_adapter(base, tmp_path / "adapter")
    assert type(adapted) is PromptTunedMaskedLM
    np.testing.assert_array_equal(adapted.predict(x, verbose=0), expected)
    folded = model.fold(1)
    rows = {k: v[TASK_IDS == 1] for k, v in x.items() if k != "task_ids"}
    np.testing.assert_allclose(folded.predict(rows, verbose=0), expected[TASK_IDS == 1], atol=1e-5)


@only_torch
def test_a_thawed_head_is_neither_trained_nor_frozen_again(tmp_path):
    """Whoever thawed it may train it elsewhere: it is theirs, as the backbone is."""
    _, model, x = make()
    model.frozen_head.trainable = True
    for act in (
        lambda: model.fit(x, TOKENS, sample_weight=WEIGHTS, verbose=0),
        lambda: model.save_adapter(tmp_path / "adapter"),
    ):
        with pytest.raises(ValueError, match="should be frozen"):
            act()
        assert model.frozen_head.trainable_variables
    assert not (tmp_path / "adapter").exists()


@only_torch
def test_a_head_without_weights_of_its_own():
    backbone = keras_hub.models.RoformerV2Backbone(
        vocabulary_size=50, num_layers=1, num_heads=2, head_size=4, hidden_dim=8, intermediate_dim=8
    )
    base = keras_hub.models.RoformerV2MaskedLM(backbone)
    model = keras_mpt.prompt_tune(base, keras_mpt.PromptTuningConfig(num_virtual_tokens=2))
    assert model.frozen_head is None
    assert model.always_frozen == [backbone]


@only_eager
def test_distillation_weighs_the_places_that_count(tmp_path):
    _, model, x = make()
    teachers = {}
    for k in range(2):
        teachers[f"task_{k}"] = model.fold(k)
        teachers[f"task_{k}"].prompt.prompt_embeddings.assign_add(
            np.random.default_rng(k).normal(size=(3, tiny.WIDTH))
        )
    distillation = keras_mpt.Distillation(model, teachers)
    logits = model.predict(x, verbose=0).astype("float64")
    taught = np.empty_like(logits)
    for k in range(2):
        rows = {n: v[k == TASK_IDS] for n, v in x.items() if n != "task_ids"}
        taught[k == TASK_IDS] = teachers[f"task_{k}"].predict(rows, verbose=0)
    p, q = (v - np.log(np.exp(v).sum(-1, keepdims=True)) for v in (taught, logits))
    kl = (np.exp(p) * (p - q)).sum(-1)
    logs = distillation.train_on_batch(x, TOKENS, WEIGHTS, return_dict=True)
    assert logs["logits_kl"] == pytest.approx((kl * WEIGHTS).sum() / WEIGHTS.sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (
            PLACES[:, 0],
            r"should have shape \(batch_size, P\), .* Received: mask_positions of shape",
        ),
        (PLACES[:3], r"a row for each row of `token_ids` and P at least 1. Received: .*\(3, 2\)"),
        (PLACES[:, :0], r"P at least 1. Received: mask_positions of shape \(4, 0\)"),
        (PLACES + 1, r"own tokens, in \[0, 6\) and outside of padding.* Received: 6 in row 0"),
        (PLACES - 1, r"Received: -1 in row 1, and 3 wrong places in all"),
        (np.array([[1], [5], [1], [1]]), "Received: 5 in row 1, and 1 wrong places in all"),
        (PLACES + 0.5, "Received: 1.5 in row 0, and 8 wrong places"),
        (PLACES.astype(str), "`mask_positions` should be integers"),
        (None, r"Received: x without \['mask_positions'\]"),
    ],
    ids=["rank", "rows", "none", "beyond", "negative", "padding", "fraction", "strings", "missing"],
)
@only_torch
def test_places_that_cannot_be_meant(places, words):
    _, model, x = make()
    with pytest.raises(ValueError, match=words):
        model.fit({**x, "mask_positions": places}, TOKENS, verbose=0)
    with pytest.raises(ValueError, match=words):
        model({**x, "mask_positions": places})


@only_torch
def test_tokens_that_cannot_be_meant():
    _, model, x = make()
    with pytest.raises(ValueError, match=r"of each of the `mask_positions`: shape \(4, 2\). Rec"):
        model.fit(x, TOKENS[:, 0], verbose=0)
    with pytest.raises(ValueError, match=r"`y` should hold token ids in \[0, 50\), also where"):
        model.fit(x, TOKENS + 40, verbose=0)
    with pytest.raises(ValueError, match="`loss` should take .*labels"):
        model.compile(loss=keras.losses.MeanSquaredError())


@only_torch
def test_what_is_no_masked_language_model():
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=2)
    with pytest.raises(ValueError, match="that keras-hub has a MaskedLM for. Received: a GPT2Back"):
        PromptTunedMaskedLM(tiny.backbone("gpt2"), config)
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    base = keras_hub.models.BertMaskedLM(tiny.backbone("bert"))
    with pytest.raises(ValueError, match="`task_type` should be 'FEATURE_EXTRACTION' or None for"):
        keras_mpt.prompt_tune(base, config)


# The rest of this file is text.

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", "good", "bad"]


def with_text():
    """A model of text that keras-hub masks at random: every second token or so."""
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=VOCABULARY)
    preprocessor = keras_hub.models.BertMaskedLMPreprocessor(
        tokenizer, sequence_length=12, mask_selection_rate=0.5, mask_selection_length=4
    )
    base = keras_hub.models.BertMaskedLM(tiny.backbone("bert"), preprocessor)
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=2)
    return keras_mpt.prompt_tune(base, config)


@only_torch
def test_text_is_masked_at_random_as_keras_hub_does():
    model = with_text()
    texts = ["a b c d e f", "g h i j", ("a b", "c d"), "good bad good bad"]
    x, y, weights = model.prepared(
        {"text": texts, "task_ids": TASK_IDS}, sample_weight=[1, 1, 2, 0]
    )
    assert (y.shape, weights.shape) == ((4, 4), (4, 4))
    places, ids = x["mask_positions"], np.asarray(x["token_ids"])
    whole = np.asarray(ids)
    np.put_along_axis(
        whole, places, np.where(weights > 0, y, np.take_along_axis(whole, places, 1)), 1
    )
    rows = [" ".join(VOCABULARY[t] for t in row if t > 4) for row in whole]
    counted = (weights > 0).sum(axis=1)
    assert counted[:3].max() > 0
    assert counted[3] == 0
    assert set(np.unique(weights)) <= {0.0, 1.0, 2.0}
    assert rows[:3] == ["a b c d e f", "g h i j", "a b c d"]
    history = model.fit({"text": texts, "task_ids": TASK_IDS}, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    with pytest.raises(
        ValueError, match=r"hold '\[MASK\]' once, where the answer stands. Received: 'a"
    ):
        model.predict({"text": texts, "task_ids": TASK_IDS}, verbose=0)
    asked = {"text": ["a [MASK]", ("b", "[MASK] c")], "task_ids": [0, 1]}
    assert model.predict(asked, verbose=0).shape == (2, 1, 50)


@only_torch
def test_cut_text_is_warned_of():
    model = with_text()
    rows = {"text": [" ".join("abcdefghij")], "task_ids": [0]}
    model.fit(rows, verbose=0)
    with pytest.warns(UserWarning, match="cuts text: of 13 tokens of a row it keeps 12"):
        model.fit({**rows, "text": [" ".join("abcdefghij") + " a"]}, verbose=0)
