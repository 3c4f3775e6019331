"""Columns that are read once, or are one for all rows, where rows are counted and drawn."""

import numpy as np
import pytest

import keras_mpt
from keras_mpt.training.recipe import _steps_of_epoch
from tests.decoding.language_models import causal_preprocessor, make
from tests.decoding.test_label_words import model_with
from tests.marks import only_torch

TEXTS, LABELS = ["ab", "c", "d", "h"], [1, 0, 1, 0]


@pytest.mark.parametrize("ids", ["tone", 0, np.int64(0)])
def test_task_ids_for_all_rows_are_not_drawn(ids):
    x, y = keras_mpt.few_shot({"prompts": TEXTS, "task_ids": ids}, LABELS, 1)
    assert x["task_ids"] is ids and sorted(y) == [0, 1]
    drawn, _ = keras_mpt.few_shot(TEXTS, LABELS, 1)
    assert x["prompts"] == drawn


def test_columns_that_are_read_once():
    expected = keras_mpt.few_shot(TEXTS, LABELS, 1)
    for given in (iter(TEXTS), (t for t in TEXTS)):
        x, y = keras_mpt.few_shot(given, LABELS, 1)
        assert x == expected[0]
        np.testing.assert_array_equal(y, expected[1])
    x, _ = keras_mpt.few_shot({"prompts": iter(TEXTS)}, LABELS, 1)
    assert x == {"prompts": expected[0]}
    given = {"prompts": iter(TEXTS), "task_ids": iter("abab")}
    x, _ = keras_mpt.few_shot(given, LABELS, 1)
    assert x["task_ids"] == ["abab"[TEXTS.index(text)] for text in x["prompts"]]
    first, second = keras_mpt.few_shot((iter(TEXTS), iter(TEXTS)), LABELS, 1)[0]
    assert first == second == expected[0]


def test_one_string_is_one_row():
    x, y = keras_mpt.few_shot("ab", [0], 1)
    assert x == ["ab"] and y.tolist() == [0]
    x, _ = keras_mpt.few_shot({"prompts": "ab", "responses": None, "task_ids": "a"}, [0], 1)
    assert x == {"prompts": ["ab"], "responses": None, "task_ids": "a"}


def test_what_has_no_rows_for_labels_is_refused():
    with pytest.raises(ValueError, match="`x` should have as many rows as `y` has labels"):
        keras_mpt.few_shot({"prompts": TEXTS, "task_ids": [0]}, LABELS, 1)


def test_a_recipe_counts_rows_and_not_letters():
    for x in ("a" * 20, ["a" * 20], {"prompts": "a" * 20, "task_ids": "a"}):
        assert _steps_of_epoch(x, 2) == (1, False)
    x = {"responses": None, "prompts": ["a"] * 5, "task_ids": 0}
    assert _steps_of_epoch(x, 2) == (3, False)


@only_torch
def test_a_recipe_and_teachers_take_what_fit_takes(tmp_path):
    model = model_with({"a": ["b", "a"]})
    recipe = keras_mpt.recipes.few_shot(steps=2, batch_size=2, stop_loss=None)
    x = {"prompts": iter(TEXTS), "task_ids": "a"}
    assert len(recipe.fit(model, x, LABELS, verbose=0).epoch) == 1
    base = make("gpt2", causal_preprocessor()).backbone
    config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    given = {"prompts": iter(TEXTS), "responses": iter(TEXTS)}
    found = keras_mpt.train_teachers(
        base, {"one": (given,)}, tmp_path, config, epochs=1, verbose=0,
        preprocessor=causal_preprocessor(),
    )  # fmt: skip
    assert list(found) == ["one"]
