"""Classes as words in the place of a mask: scores by hand, labels, accuracy, and bad input."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.fitting.mask_text import MaskText
from keras_mpt.splicing.splice import Splice
from tests import tiny
from tests.marks import only_eager, only_torch, slow_on_jax

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", "good", "bad", "fun"]
WORDS = {"tone": ["bad", "good"], "topic": ["a", "fun", "b"]}
ID = {token: i for i, token in enumerate(VOCABULARY)}
TEXTS = ["a b [MASK] .", "c [MASK]", "[MASK] d e f", "g h i j [MASK] a"]
TASKS, Y = ["tone", "topic", "tone", "topic"], np.array([1, 2, 0, 1])
NUMBERS = np.array([0, 1, 0, 1])
X = {"text": TEXTS, "task_ids": TASKS}


def make_base():
    """keras-hub's model with large random weights."""
    tokenizer = keras_hub.models.BertTokenizer(vocabulary=VOCABULARY)
    preprocessor = keras_hub.models.BertMaskedLMPreprocessor(tokenizer, sequence_length=16)
    backbone = tiny.with_large_weights(tiny.backbone("bert", dropout=0.0))
    base = keras_hub.models.BertMaskedLM(backbone, preprocessor)
    rng = np.random.default_rng(1)
    for variable in base.masked_lm_head.variables[:2]:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return base


def make(words=WORDS, base=None, **kwargs):
    """A model of two tasks with random prompts."""
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=3, num_tasks=2, task_names=list(WORDS), label_words=words
    )
    model = keras_mpt.prompt_tune(base or make_base(), config, **kwargs)
    rng = np.random.default_rng(2)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model


def by_hand(model, texts=TEXTS, tasks=NUMBERS):
    """The logarithms of the softmax (B, V) at the mask, of tokens that are put together here."""
    rows = [[2, *(ID.get(t, 1) for t in text.split()), 3] for text in texts]
    ids = np.array([[*row, *[0] * (9 - len(row))] for row in rows])
    x = {"token_ids": ids, "padding_mask": ids != 0, "task_ids": np.array(tasks)}
    x["mask_positions"] = np.argwhere(ids == 4)[:, 1:]
    logits = model.predict_on_batch(x)[:, 0].astype("float64")
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def of_words(log_p, tasks=NUMBERS):
    """Those of each row's own task's words, (B, 3)."""
    found = np.full((len(tasks), 3), -np.inf)
    for row, (p, k) in enumerate(zip(log_p, tasks, strict=True)):
        ids = [ID[word] for word in WORDS[list(WORDS)[k]]]
        found[row, : len(ids)] = p[ids]
    return found


@slow_on_jax
def test_scores_labels_and_accuracy_are_those_by_hand():
    model = make()
    log_p = by_hand(model)
    expected = of_words(log_p)
    assert np.ptp(expected[:, :2]) > 0.5
    scores = model.predict(X)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    by_three = model.score(TEXTS, task_ids=NUMBERS, batch_size=3)
    np.testing.assert_allclose(by_three, scores, rtol=1e-6)
    labels, p = model.predict_labels(TEXTS, task_ids=TASKS, return_probabilities=True)
    best = expected.argmax(axis=1)
    assert labels == [WORDS[task][k] for task, k in zip(TASKS, best, strict=True)]
    own = np.exp(expected)
    np.testing.assert_allclose(p, own / own.sum(axis=1, keepdims=True), rtol=1e-5)
    given = model.score(X, ["good", "fun"])
    np.testing.assert_allclose(given, log_p[:, [ID["good"], ID["fun"]]], rtol=1e-5)
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(-np.mean([expected[i, k] for i, k in enumerate(Y)]), 1e-5)
    for y in (Y, best):
        logs = model.evaluate(X, y, verbose=0, return_dict=True)
        assert logs["accuracy"] == pytest.approx(np.mean(best == y))
        assert logs["topic_accuracy"] == pytest.approx(np.mean((best == y)[NUMBERS == 1]))


@only_eager
def test_labels_train_and_the_words_are_kept(tmp_path):
    base = make_base()
    model = make(base=base)
    model.compile(keras.optimizers.Adam(0.2))
    logs = model.fit(X, Y, validation_data=(X, Y), epochs=25, verbose=0).history
    assert logs["loss"][-1] < 0.8 * logs["loss"][0]
    expected = model.score(X)
    assert logs["val_accuracy"][-1] == pytest.approx(np.mean(expected.argmax(axis=1) == Y))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    np.testing.assert_allclose(loaded.score(X), expected, rtol=1e-5)
    model.save_adapter(tmp_path / "adapter")
    adapted = keras_mpt.load_adapter(base, tmp_path / "adapter")
    np.testing.assert_allclose(adapted.score(X), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="task is given in the place of its backbone, such as a M"):
        keras_mpt.load_adapter(base.backbone, tmp_path / "adapter")
    folded = model.fold("topic")
    rows = [text for text, task in zip(TEXTS, TASKS, strict=True) if task == "topic"]
    np.testing.assert_allclose(folded.predict(rows), expected[NUMBERS == 1], rtol=1e-5)


@only_torch
def test_weights_of_rows_and_places_of_several_tokens():
    model = make()
    expected, weights = of_words(by_hand(model)), np.array([1.0, 0.0, 2.0, 0.5])
    logs = model.evaluate(X, Y, sample_weight=weights, verbose=0, return_dict=True)
    losses = -expected[np.arange(4), Y]
    assert logs["loss"] == pytest.approx(np.average(losses, weights=weights), 1e-5)
    right = expected.argmax(axis=1) == Y
    assert logs["accuracy"] == pytest.approx(np.average(right, weights=weights))
    # Tokens that are asked for at several places are no labels, though one may be a word.
    x, _, _ = model.prepared({"text": ["a b c d"], "task_ids": [0]})
    x["mask_positions"], y = np.array([[1, 3]]), np.array([[ID["good"], ID["c"]]])
    y[0, 1] = model.predict(x, verbose=0)[0, 1].argmax()
    logs = model.evaluate(x, y, sample_weight=np.ones((1, 2)), verbose=0, return_dict=True)
    assert logs["accuracy"] == 0.5


@slow_on_jax
def test_batches_of_a_stream_may_differ_in_width():
    model = make()
    model.preprocessor.sequence_length = 29
    texts = ["a [MASK]", "[MASK] b", "c [MASK] " + "d " * 20]
    labels = of_words(by_hand(model, texts[:2], [0, 0]), [0, 0]).argmax(axis=1).tolist()
    # Keras takes the first two batches for the shapes of all.
    rows = (
        ({"text": [t], "task_ids": [0]}, np.array([k]))
        for t, k in zip(texts, [*labels, 0], strict=True)
    )
    found = model.evaluate(rows, verbose=0, return_dict=True)
    answer = model.predict_labels(texts[2:], task_ids=0)[0]
    assert found["accuracy"] == pytest.approx((2 + (answer == WORDS["tone"][0])) / 3)


@only_torch
def test_streams_and_mixes_take_labels():
    tf = pytest.importorskip("tensorflow")
    model = make()
    expected = model.evaluate(X, Y, verbose=0, return_dict=True)
    parts = [slice(0, 2), slice(2, 4)]
    rows = (({"text": TEXTS[p], "task_ids": TASKS[p]}, Y[p]) for p in parts)
    found = model.evaluate(rows, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    assert model.evaluate(data, verbose=0, return_dict=True) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"labels in \[0, 2\), the classes of task 'tone'. Rec"):
        model.fit(tf.data.Dataset.from_tensor_slices((X, Y + 1)).batch(4), verbose=0)
    mix = {name: ([TEXTS[i] for i in rows], Y[rows]) for name, rows in
           (("tone", [0, 2]), ("topic", [1, 3]))}  # fmt: skip
    logs = model.fit(keras_mpt.TaskMix(mix, batch_size=2), verbose=0).history
    assert {"tone_accuracy", "topic_accuracy"} <= set(logs)


@only_torch
def test_calibration_takes_off_what_words_have_without_content():
    model = make()
    free = ["[MASK]", "N/A [MASK]"]
    log_p = by_hand(model)
    prior = {}
    for k in range(2):
        tokens = ["[MASK]", "[UNK] [UNK] [UNK] [MASK]"]  # "N", "/" and "A".
        own = np.exp(of_words(by_hand(model, tokens, [k, k]), [k, k]))
        prior[k] = (own / own.sum(axis=1, keepdims=True)).mean(axis=0)
    expected = of_words(log_p) - np.log(np.where([prior[k] > 0 for k in NUMBERS],
                                                 [prior[k] for k in NUMBERS], 1))  # fmt: skip
    for calibrate in (True, free):
        labels, p = model.predict_labels(X, calibrate=calibrate, return_probabilities=True)
        own = np.exp(expected)
        np.testing.assert_allclose(p, own / own.sum(axis=1, keepdims=True), rtol=1e-4)
    assert labels == [WORDS[t][k] for t, k in zip(TASKS, expected.argmax(axis=1), strict=True)]


@only_torch
@pytest.mark.parametrize("name", ["Bert", "Roberta"])
def test_texts_become_what_the_preprocessor_makes_of_them(name):
    models = keras_hub.models
    if name == "Bert":
        tokenizer = models.BertTokenizer(vocabulary=VOCABULARY)
        mask, around, backbone = "[MASK]", [2, 3, 3], tiny.backbone("bert")
    else:
        letters = [*"abcĠ.", "Ġa", "Ġb"]
        ids = {t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<mask>", *letters])}
        tokenizer = models.RobertaTokenizer(vocabulary=ids, merges=["Ġ a", "Ġ b"])
        mask, around, backbone = "<mask>", [0, 2, 2, 2], tiny.backbone("roberta")
    made = getattr(models, f"{name}MaskedLMPreprocessor")(
        tokenizer, sequence_length=12, mask_selection_rate=0.0, mask_selection_length=1
    )
    splice = Splice(backbone, 2)
    x = MaskText(splice, made).inputs([f"a b {mask}", (f"a {mask} b", "b"), f"{mask}. a"])
    start, *after = around
    a, b, dot = (int(np.ravel(tokenizer(text))[0]) for text in (" a", " b", "."))
    first_a, first_b = (int(np.ravel(tokenizer(text))[0]) for text in ("a", "b"))
    mask_id = tokenizer.mask_token_id
    rows = [
        [start, first_a, b, mask_id, after[0]],
        [start, first_a, mask_id, b, *after[:-1], first_b, after[-1]],
        [start, mask_id, dot, a, after[0]],
    ]
    for row, ids, place in zip(rows, x["token_ids"], x["mask_positions"], strict=True):
        assert ids[: len(row)].tolist() == row
        assert (ids[len(row) :] == tokenizer.pad_token_id).all()
        assert place.tolist() == [row.index(mask_id)]
    np.testing.assert_array_equal(x["padding_mask"].sum(axis=1), list(map(len, rows)))
    assert x["token_ids"].shape == (3, 12)
    if name == "Bert":
        pair = made(x=(["a b"], ["c d"]))[0]
        own = MaskText(splice, made).inputs([("a [MASK]", "c d")])
        for other in ("segment_ids", "padding_mask"):
            np.testing.assert_array_equal(own[other], ops.convert_to_numpy(pair[other]))


@only_torch
@pytest.mark.parametrize("side", ["left", "right"])
def test_long_texts_are_cut_as_asked_and_never_the_mask(side):
    model = make(truncation_side=side)
    model.preprocessor.sequence_length = 6
    text = {"left": "[MASK] a b c d e f g", "right": "a b c d e f g [MASK]"}[side]
    kept = {"left": "[MASK] e f g", "right": "a b c [MASK]"}[side]
    expected = by_hand(model, [kept], [0])
    scores = model.score([text], ["good", "bad"], task_ids=0)
    np.testing.assert_allclose(scores, expected[:, [ID["good"], ID["bad"]]], rtol=1e-5)
    assert type(model).from_config(model.get_config()).truncation_side == side
    uncut = make()
    uncut.preprocessor.sequence_length = 6
    with pytest.raises(ValueError, match="at most 4 tokens here .* one of 8 tokens in row 1"):
        uncut.fit({"text": ["a [MASK]", text], "task_ids": 0}, [0, 1], verbose=0)


@only_torch
@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (
            {**X, "text": ["a b", *TEXTS[1:]]},
            Y,
            r"hold '\[MASK\]' once, .*: 'a b' in row 0, .*0 ti",
        ),
        ({**X, "text": ["[MASK] [MASK]", *TEXTS[1:]]}, Y, "in row 0, which holds it 2 times"),
        (X, [1, 3, 0, 1], r"labels in \[0, 3\), the classes of task 'topic'. Received: label 3 in"),
        (X, Y - 1, r"labels in \[0, 2\), the classes of task 'tone'. Received: label -1 in row 2"),
        (X, Y[:3], r"one label per row: 4 of them. Received: y of shape \(3,\)"),
        (
            X,
            None,
            r"hold labels where texts hold '\[MASK\]'; .* y=None with 'a b \[MASK\] .' in row 0",
        ),
        (X, ["good"] * 4, "should hold the classes' numbers, from 0 on. Received: y of dtype"),
    ],
    ids=["no mask", "two masks", "too high", "negative", "too few", "no labels", "strings"],
)
def test_data_that_cannot_be_meant(x, y, words):
    model = make()
    for method in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=words):
            method(x, y, verbose=0)


@only_torch
def test_words_that_cannot_be_meant():
    with pytest.raises(ValueError, match="one token each in a masked .* task 'tone' with 'good fu"):
        make(words={"tone": ["bad", "good fun"]})
    with pytest.raises(ValueError, match="tokenizer knows.* task 'tone' with 'dull', in which"):
        make(words={"tone": ["dull", "good"]})
    model = make(words={"tone": ["bad", "good"]})
    with pytest.raises(ValueError, match="also of task 'topic'"):
        model.fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match="also of task 'topic'"):
        model.predict_labels(X)
    assert model.predict(X, verbose=0).shape == (4, 1, 50)  # Of a task without words: logits.
    with pytest.raises(ValueError, match="`candidates` should have one token each, .* 'good fun'"):
        model.score(X, ["good fun", "bad"])
    with pytest.raises(ValueError, match="one token each in a masked language model"):
        model.add_task("more", label_words=["a b", "c"])
    model.add_task("more", label_words=["a", "c"])
    assert model.predict_labels("[MASK] b", task_ids="more")[0] in ("a", "c")
    x, _, _ = model.prepared({"text": ["a b c"] * 2, "task_ids": [0, 1]})
    with pytest.raises(ValueError, match="should be one per row where it is asked"):
        model.score(x, [[5], [6]])


@only_torch
def test_the_paper_s_two_stages_in_words(tmp_path):
    base, data = make_base(), {}
    for k, name in enumerate(WORDS):
        rows = np.flatnonzero(k == NUMBERS)
        data[name] = [TEXTS[i] for i in rows], Y[rows]
    one = keras_mpt.PromptTuningConfig(num_virtual_tokens=3)
    kwargs = {"label_words": WORDS, "epochs": 2, "verbose": 0}
    directories = keras_mpt.train_teachers(base, data, tmp_path, one, **kwargs)
    student = make(base=base)
    distillation = keras_mpt.Distillation(student, tmp_path)
    for name, teacher in zip(WORDS, distillation.teacher_models, strict=True):
        own = keras_mpt.load_adapter(base, directories[name])
        assert own.config.label_words == WORDS[name]
        np.testing.assert_array_equal(teacher.score(data[name][0]), own.score(data[name][0]))
    logs = distillation.fit(keras_mpt.TaskMix(data, batch_size=4), verbose=0).history
    assert {"topic_logits_kl", "tone_accuracy"} <= set(logs)
    texts = {"new": (["a [MASK]", "b [MASK]"], np.array([0, 1]))}
    adapted = keras_mpt.adapt(student, "new", label_words={"new": ["c", "d"]})
    adapted.fit(keras_mpt.TaskMix(texts, batch_size=2), verbose=0)
    assert adapted.predict_labels(["c [MASK]"], task_ids="new")[0] in ("c", "d")
