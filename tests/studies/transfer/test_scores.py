"""Scores against counts by hand and another library's formula."""

import sys
import types

import numpy as np
import pytest

from studies.transfer.scores import accuracy, matthews, score, text_scores


def test_accuracy():
    assert accuracy(np.array([0, 1, 2, 1]), np.array([0, 1, 1, 1])) == 0.75


def test_matthews_is_the_correlation_of_both_columns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    predicted = np.where(rng.random(200) < 0.7, labels, 1 - labels)
    expected = np.corrcoef(labels, predicted)[0, 1]
    assert matthews(labels, predicted) == pytest.approx(expected, abs=1e-12)
    # 3 true positives, 1 true negative, 1 false positive, 1 false negative: 2 / 8.
    assert matthews(np.array([1, 1, 1, 0, 0, 1]), np.array([1, 1, 1, 0, 1, 0])) == 0.25


def test_one_class_alone_correlates_with_nothing():
    assert matthews(np.array([0, 1, 1]), np.array([1, 1, 1])) == 0.0


def test_cola_is_scored_by_matthews():
    labels, predicted = np.array([0, 1, 1]), np.array([1, 1, 1])
    assert score("cola", labels, predicted) == 0.0
    assert score("cr", labels, predicted) == pytest.approx(2 / 3)


def test_text_is_right_word_for_word_of_any_reference(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    references = [["It is  late."], ["Yes", "yes, it is"]]
    assert text_scores(references, ["it is late.", "Yes, it is"]) == {
        "score": 1.0, "exact_match": 1.0
    }  # fmt: skip
    assert text_scores(references, ["late.", "Yes, it is"])["score"] == 0.5


def test_sacrebleu_gets_a_stream_for_each_reference(monkeypatch):
    given = []

    def corpus_bleu(answers, streams):
        given.append((answers, streams))
        return types.SimpleNamespace(score=25.0)

    fake = types.SimpleNamespace(corpus_bleu=corpus_bleu)
    monkeypatch.setitem(sys.modules, "sacrebleu", fake)
    found = text_scores([["a b"], ["c", "d"]], ["a", "d"])
    assert given == [(["a", "d"], [["a b", "c"], [None, "d"]])]
    assert found == {"score": 0.5, "exact_match": 0.5, "bleu": 0.25}
