"""Prompts with their answers, by hand."""

import numpy as np

from studies.transfer.words.answers import attached, first_words, last_positions

X = {
    "token_ids": np.array([[5, 6, 7, 0], [8, 9, 0, 0]], "int32"),
    "padding_mask": np.array([[1, 1, 1, 0], [1, 1, 0, 0]], "int32"),
    "task_ids": np.array([1, 0], "int32"),
}


def test_one_word_is_asked_where_the_prompt_ends():
    x, y, weights = attached(X, [np.array([20]), np.array([21])])
    np.testing.assert_array_equal(x["token_ids"], [[5, 6, 7], [8, 9, 0]])
    np.testing.assert_array_equal(x["padding_mask"], [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(y, [[0, 0, 20], [0, 21, 0]])
    np.testing.assert_array_equal(weights, [[0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(x["task_ids"], [1, 0])


def test_a_longer_answer_is_read_up_to_its_last_token():
    answers = [np.array([20, 2]), np.array([21, 22, 2])]
    x, y, weights = attached(X, answers, width=6)
    np.testing.assert_array_equal(x["token_ids"], [[5, 6, 7, 20, 0, 0], [8, 9, 21, 22, 0, 0]])
    np.testing.assert_array_equal(y, [[0, 0, 20, 2, 0, 0], [0, 21, 22, 2, 0, 0]])
    third = np.float32(1 / 3)
    np.testing.assert_array_equal(weights, [[0, 0, 0.5, 0.5, 0, 0], [0, third, third, third, 0, 0]])
    np.testing.assert_array_equal(x["padding_mask"].sum(axis=1), [4, 4])


def test_words_are_told_apart_by_their_first_tokens():
    logits = np.array([[0.0, 3.0, 1.0, 2.0], [0.0, 0.0, 5.0, 1.0]])
    answers = [np.array([3]), np.array([2, 1])]
    np.testing.assert_array_equal(first_words(logits, answers), [0, 1])
    np.testing.assert_array_equal(last_positions(X), [2, 1])
