"""Models whose prompts stand after the text: text in, words out, and what is refused."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.splicing.text_cache import TextCache
from tests import tiny
from tests.decoding.language_models import causal_preprocessor
from tests.marks import slow_on_jax

TEXTS = ["abc", "bad", "feed", "gab", "he", "decade"]
TASKS = ["a", "b", "a", "b", "a", "b"]
LABELS = np.array([0, 1, 1, 0, 0, 1])
WORDS = {"a": ["c", "dd"], "b": ["e", "f"]}
SIZES = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3, "num_tasks": 2}


def make(position="after", **kwargs):
    backbone = tiny.with_large_weights(tiny.backbone("gpt2", dropout=0.0))
    config = keras_mpt.MultitaskPromptTuningConfig(
        **SIZES, task_names=["a", "b"], prompt_position=position, label_words=WORDS, seed=0
    )
    model = keras_mpt.prompt_tune(backbone, config, preprocessor=causal_preprocessor(12), **kwargs)
    for variable in model.prompt.weights:
        noise = np.random.default_rng(1).normal(size=variable.shape)
        variable.assign(ops.convert_to_numpy(variable) + noise)
    model.compile(keras.optimizers.Adam(0.05), sampler="greedy")
    return model


@pytest.fixture(scope="module")
def model():
    return make()


def test_labels_as_words_are_learned_and_the_rest_stays():
    model = make()
    before = [ops.convert_to_numpy(w) for w in model.backbone.weights]
    x = {"text": TEXTS, "task_ids": TASKS}
    losses = model.fit(x, LABELS, epochs=40, verbose=0, batch_size=6).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    wanted = [WORDS[t][k] for t, k in zip(TASKS, LABELS, strict=True)]
    assert model.predict_labels(TEXTS, task_ids=TASKS) == wanted
    found = model.evaluate(x, LABELS, verbose=0, return_dict=True)
    assert found["accuracy"] == 1.0
    for value, start in zip(model.backbone.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(value), start)


@slow_on_jax
@pytest.mark.parametrize("bucketed", [False, True])
def test_streams_and_mixes_of_responses_train_as_arrays_do(model, bucketed):
    rows = {"prompts": TEXTS, "responses": ["fg", "a", "b", "cc", "h", "ab"], "task_ids": TASKS}

    def batches():
        for start in (0, 3):
            yield ({name: column[start : start + 3] for name, column in rows.items()},)

    expected = model.evaluate(rows, batch_size=3, verbose=0, return_dict=True)["loss"]
    found = model.evaluate(batches(), verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    tasks = {}
    for name in "ab":
        which = [i for i, task in enumerate(TASKS) if task == name]
        tasks[name] = ({n: [rows[n][i] for i in which] for n in ("prompts", "responses")}, None)
    mix = keras_mpt.TaskMix(tasks, batch_size=2, seed=0, bucket_by_length=bucketed)
    losses = make().fit(mix, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_one_text_runs_once_for_all_tasks(model, monkeypatch):
    read = []
    original = TextCache.read

    def spied(self, text_ids, more):
        read.append(tuple(text_ids.shape))
        return original(self, text_ids, more)

    monkeypatch.setattr(TextCache, "read", spied)
    model.functions.forget()
    texts = ["bad", "fed"]
    asked = [text for text in texts for _ in range(2)]
    found = model.score(asked, task_ids=["a", "b"] * 2)
    assert [rows for rows, _ in read] == [2]
    monkeypatch.undo()
    alone = [model.score(text, task_ids=t)[0] for text in texts for t in "ab"]
    np.testing.assert_allclose(found, np.stack(alone), rtol=1e-5)
    np.testing.assert_allclose(
        found, model.score(asked, task_ids=["a", "b"] * 2, use_cache=False), rtol=1e-5
    )


def test_generated_text_is_that_of_each_row_alone(model):
    together = model.generate({"prompts": TEXTS}, task_ids=TASKS, max_length=10)
    alone = [
        model.generate(t, task_ids=k, max_length=10) for t, k in zip(TEXTS, TASKS, strict=True)
    ]
    assert together == alone
    assert all(made.startswith(text) for made, text in zip(together, TEXTS, strict=True))
    assert together == model.generate(TEXTS, task_ids=TASKS, max_length=10, use_cache=False)


def test_saved_folded_and_with_a_task_more(tmp_path):
    model = make()
    expected = model.score(TEXTS, task_ids=TASKS)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.config.prompt_position == "after"
    np.testing.assert_allclose(loaded.score(TEXTS, task_ids=TASKS), expected, rtol=1e-6)
    message = "it puts prompts before all tokens, this model after the text"
    with pytest.warns(UserWarning, match=message):
        model.save_adapter(tmp_path / "adapter")
    assert "after the text, before its last token" in (tmp_path / "adapter/README.md").read_text()
    opened = keras_mpt.load_adapter(
        model.backbone, tmp_path / "adapter", preprocessor=causal_preprocessor(12)
    )
    np.testing.assert_allclose(opened.score(TEXTS, task_ids=TASKS), expected, rtol=1e-6)
    folded = model.fold("b")
    of_b = [i for i, name in enumerate(TASKS) if name == "b"]
    found = folded.score([TEXTS[i] for i in of_b])
    np.testing.assert_allclose(found, expected[of_b], rtol=1e-5)
    model.add_task("c", from_="a", label_words=["c", "dd"])
    np.testing.assert_allclose(
        model.score(TEXTS[0], task_ids="c"), model.score(TEXTS[0], task_ids="a"), rtol=1e-6
    )
    bank = keras_mpt.PromptBank(
        model.backbone, task_type="CAUSAL_LM", preprocessor=causal_preprocessor(12)
    )
    with pytest.raises(ValueError, match="`prompt_position` of an adapter should be 'before' or "):
        bank.load("ours", tmp_path / "adapter")
    with pytest.raises(ValueError, match="`prompt_position` should be 'before' for a folder"):
        model.export_prompt_embeds("a", tmp_path / "folder")


def test_a_server_gets_each_row_s_embeddings_in_this_order(model):
    rows = model.prompt_embeds(TEXTS[:2], task_ids=["a", "b"])
    prompts = ops.convert_to_numpy(model.prompt(np.array([0, 1])))
    x = model.prepared({"prompts": TEXTS[:2], "task_ids": ["a", "b"]})[0]
    for row, prompt, ids, length in zip(
        rows, prompts, x["token_ids"], x["text_lengths"], strict=True
    ):
        np.testing.assert_allclose(row[length - 1 : length + 2], prompt, rtol=1e-6)
        table = ops.convert_to_numpy(model.splice.embed_tokens(np.asarray(ids[:length])))
        np.testing.assert_allclose(np.delete(row, slice(length - 1, length + 2), 0), table)


def test_a_file_of_numbers_is_read_where_the_prompt_stood(model, tmp_path):
    with pytest.warns(UserWarning, match="prompt_position='after'"):
        model.export_prompt_embeds("a", tmp_path / "a.npy")
    read = keras_mpt.load_prompt(
        model.backbone, tmp_path / "a.npy", "CAUSAL_LM", prompt_position="after",
        preprocessor=causal_preprocessor(12),
    )  # fmt: skip
    expected = model.score(TEXTS, ["c", "dd"], task_ids="a")
    np.testing.assert_allclose(read.score(TEXTS, ["c", "dd"]), expected, rtol=1e-5)


def test_of_tokens_what_follows_the_text_counts_alone(model):
    rows = {"prompts": TEXTS, "responses": ["fg", "a", "b", "cc", "h", "ab"], "task_ids": TASKS}
    x, y, weight = model.prepared(rows)
    expected = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    own = np.array([1.0, 0, 2, 0, 1, 3])
    expected = model.evaluate(x, y, sample_weight=weight * own[:, None], verbose=0)
    assert model.evaluate(x, y, sample_weight=own, verbose=0) == pytest.approx(expected, rel=1e-5)


@slow_on_jax
def test_distillation_on_rows_with_prompts_after_the_text(tmp_path):
    student = make()
    x = {"text": TEXTS, "task_ids": TASKS}
    datasets = {
        name: ({"text": [t for t, k in zip(TEXTS, TASKS, strict=True) if k == name]},
               LABELS[np.array(TASKS) == name])
        for name in "ab"
    }  # fmt: skip
    config = keras_mpt.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, prompt_position="after"
    )
    teachers = keras_mpt.train_teachers(
        student.backbone, datasets, tmp_path / "teachers", config, label_words=WORDS, epochs=1,
        verbose=0, preprocessor=causal_preprocessor(12),
    )  # fmt: skip
    both = keras_mpt.Distillation(student, teachers, prompt_positions=True)
    both.compile(keras.optimizers.Adam(0.05))
    losses = both.fit(x, LABELS, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


IDS = np.array([[5, 6, 7, 0], [1, 2, 3, 4]])
TOKENS = {"token_ids": IDS, "padding_mask": (IDS > 0) * 1, "task_ids": [0, 1]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text_lengths": [4, 4]}, "`text_lengths` should be one whole number per row, from 1 to "
                                   r"the row's tokens, \[3, 4\]: the prompt stands after so many"),
        ({"text_lengths": [0, 4]}, "`text_lengths` should be one whole number per row"),
        ({"text_lengths": [1.5, 4]}, "`text_lengths` should be one whole number per row"),
        ({"text_lengths": [2]}, "`text_lengths` should be one whole number per row"),
        ({"text_lengths": 2}, "`text_lengths` should be one whole number per row"),
        ({"text_lengths": ["a", "b"]}, "`text_lengths` should be integers"),
        ({"padding_mask": np.array([[0, 1, 1, 1], [1, 1, 1, 1]])},
         "`padding_mask` should be 1 at each row's tokens, then 0, where the prompt stands after"),
        ({"padding_mask": np.array([[1, 0, 1, 1], [1, 1, 1, 1]])},
         "`padding_mask` should be 1 at each row's tokens, then 0, where the prompt stands after"),
    ],
)  # fmt: skip
def test_rows_that_have_no_such_place_are_refused(model, given, message):
    for call in (model, lambda x: model.fit(x, IDS, verbose=0),
                 lambda x: model.score(x, [[1], [2]])):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            call({**TOKENS, **given})


def test_rows_that_do_not_say_where_the_text_ends_are_not_trained_on(model):
    before = [ops.convert_to_numpy(w) for w in model.prompt.weights]
    message = "`x` should have 'text_lengths' beside tokens where `prompt_position` is 'after'"
    with pytest.raises(ValueError, match=message):
        model.fit(TOKENS, IDS, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.evaluate({"text": TEXTS, "task_ids": TASKS}, verbose=0)
    for call in (
        lambda x: model.score(x, [[1], [2]]),
        lambda x: model.generate(x, stop_token_ids=None),
    ):
        room = {n: np.pad(v, [(0, 0), (0, 2)]) if np.ndim(v) == 2 else v for n, v in TOKENS.items()}
        with pytest.raises(ValueError, match="`text_lengths` should be left out, or be the tokens"):
            call({**room, "text_lengths": [2, 4]})
    for variable, start in zip(model.prompt.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), start)


@pytest.mark.parametrize(
    ("kind", "task_type"), [("bert", "SEQ_CLS"), ("t5", "SEQ_2_SEQ_LM"), ("bert", None)]
)
def test_models_whose_text_sees_what_comes_after_it_have_none(kind, task_type):
    config = keras_mpt.PromptTuningConfig(
        task_type=task_type, num_virtual_tokens=3, prompt_position="after"
    )
    more = {"num_classes": 2} if task_type == "SEQ_CLS" else {}
    message = "`prompt_position` should be 'before', 'after_start' or None but for causal language"
    with pytest.raises(ValueError, match=message):
        if task_type is None:
            keras_mpt.models.PromptTunedBackbone(tiny.backbone(kind), config)
        else:
            keras_mpt.prompt_tune(tiny.backbone(kind), config, **more)


@pytest.mark.parametrize("given", [{"share_prompts": True}, {"remat": True}])
def test_what_needs_prompts_in_front_is_refused(given):
    with pytest.raises(ValueError, match=f"`{next(iter(given))}` should be"):
        make(**given)
