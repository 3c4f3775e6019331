"""Nearest tokens, against NumPy in float64 over the whole vocabulary."""

import keras
import numpy as np
import pytest

from keras_mpt.analysis import nearest_tokens
from keras_mpt.prompts import cosines
from tests import tiny
from tests.analysis import models


@pytest.fixture(scope="module")
def model():
    """A model that no test changes."""
    return models.randomized(models.make("bert"))


def expected(model, prompt, k):
    """Ids and similarities over the whole table at once."""
    table = keras.ops.convert_to_numpy(model.splice.embed_tokens(np.arange(tiny.VOCABULARY)))
    table = table.astype("float64")
    norms = np.linalg.norm(prompt, axis=1)[:, None] * np.linalg.norm(table, axis=1)
    similarities = prompt @ table.T / norms
    ids = np.argsort(-similarities, axis=1)[:, :k]
    return ids, np.take_along_axis(similarities, ids, axis=1)


def as_arrays(found):
    """The pairs of a result as two arrays."""
    pairs = [list(zip(*row, strict=True)) for row in found]
    return np.array([ids for ids, _ in pairs]), np.array([s for _, s in pairs])


@pytest.mark.parametrize("task", [None, "topic", 2])
@pytest.mark.parametrize("k", [3, tiny.VOCABULARY])
def test_in_numpy(model, task, k, monkeypatch):
    monkeypatch.setattr(cosines, "_CHUNK_ROWS", 7)  # The last chunk is a shorter one.
    prompt, cols, rows = models.weights(model)
    if task is not None:
        task_id = models.NAMES.index(task) if isinstance(task, str) else task
        prompt = prompt * (cols[task_id] @ rows[task_id])
    ids, similarities = expected(model, prompt, k)
    found_ids, found = as_arrays(nearest_tokens(model, task, k))
    np.testing.assert_array_equal(found_ids, ids)
    np.testing.assert_allclose(found, similarities, atol=1e-6)


def test_the_table_is_never_asked_for_whole(monkeypatch):
    monkeypatch.setattr(cosines, "_CHUNK_ROWS", 4)
    table, asked = np.random.default_rng(0).normal(size=(10, 3)), []

    def rows_of(ids):
        asked.append(ids.tolist())
        return table[ids]

    rows, found = cosines.top_cosines(table[[9, 2]], rows_of, 10, 1)
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert rows.tolist() == [[9], [2]]
    np.testing.assert_allclose(found, 1)


def test_equals_come_by_id_and_zeros_last(monkeypatch):
    monkeypatch.setattr(cosines, "_CHUNK_ROWS", 2)
    table = np.array([[0, 0], [2, 0], [0, 1], [5, 0], [-1, 0]])
    rows, found = cosines.top_cosines([[1, 0]], lambda ids: table[ids], 5, 5)
    assert rows.tolist() == [[1, 3, 2, 4, 0]]
    np.testing.assert_array_equal(found, [[1, 1, 0, -1, np.nan]])


def test_a_start_from_text_reads_as_that_text():
    model = models.single()
    found = nearest_tokens(model, k=2)
    assert [row[0][0] for row in found] == ["good", "bad", "goal", "vote"]
    np.testing.assert_allclose([row[0][1] for row in found], 1, rtol=1e-6)
    # The table has more rows than the tokenizer has words: what it cannot name stays an id.
    tokens = [token for token, _ in nearest_tokens(model, k=tiny.VOCABULARY)[0]]
    words = [token for token in tokens if isinstance(token, str)]
    assert sorted(words) == sorted(models.WORDS)
    ids = [token for token in tokens if isinstance(token, int)]
    assert sorted(ids) == list(range(len(models.WORDS), tiny.VOCABULARY))


def test_a_tokenizer_may_be_given(model):
    ids = [[token for token, _ in row] for row in nearest_tokens(model, "tone")]
    tokenizer = models.single().preprocessor.tokenizer
    tokens = [[token for token, _ in row] for row in nearest_tokens(model, "tone", 5, tokenizer)]
    assert tokens == [[models.WORDS[i] if i < len(models.WORDS) else i for i in row] for row in ids]
    assert any(isinstance(token, str) for row in tokens for token in row)


def test_bad_input(model):
    tasks = "`task` should be one of the tasks ['tone', 'topic', 'intent'], an id in [0, 3), or "
    for call, error in (
        (lambda: nearest_tokens(model, k=51), "`k` should be at most the vocabulary's 50 tokens. "
         "Received: k=51"),
        (lambda: nearest_tokens(model, k=0), "`k` should be a positive integer. Received: k=0"),
        *(
            (
                lambda task=task: nearest_tokens(model, task),
                f"{tasks}None for the prompt that they share. Received: task={task!r}",
            )
            for task in ("x", 3, -1, True, 1.0)
        ),
        (
            lambda: nearest_tokens(models.single(), "tone"),
            "`model` should have tasks, those of a MultitaskPromptTuningConfig. Received: a model "
            "with a PromptTuningConfig",
        ),
        (
            lambda: nearest_tokens(model, tokenizer=str.split),
            "`tokenizer` should be a keras-hub tokenizer or None. Received: a method_descriptor",
        ),
        (
            lambda: nearest_tokens(keras.Sequential()),
            "`model` should be a prompt-tuned model, such as `prompt_tune` makes. Received: a "
            "Sequential",
        ),
    ):  # fmt: skip
        with pytest.raises(ValueError) as raised:
            call()
        assert str(raised.value) == error
