"""What is read of the tasks' files, and which rows are drawn."""

import numpy as np
import pytest

from studies.transfer import data


def test_one_text_a_row(tmp_path):
    file = tmp_path / "train.tsv"
    text = 'text\tlabel\nan "unclosed quote\t1\nline\u2028separator, naïve\t0\n'
    file.write_text(text, encoding="utf-8")
    found = data.read_texts(file)
    assert found.texts == (['an "unclosed quote', "line\u2028separator, naïve"],)
    np.testing.assert_array_equal(found.labels, [1, 0])


def test_a_pair_a_row(tmp_path):
    file = tmp_path / "test.tsv"
    file.write_text("text_a\ttext_b\tlabel\nIs it?\tIt is.\t2\nAn empty second\t\t0\n")
    found = data.read_texts(file)
    assert found.texts == (["Is it?", "An empty second"], ["It is.", ""])
    np.testing.assert_array_equal(found.labels, [2, 0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sentence\tlabel\nfine\t1\n", "should be text, label or text_a, text_b, label"),
        ("text\tlabel\nfine\t1\nno label\n", "should have 2 columns. Received: line 3"),
    ],
)
def test_other_files_end_the_program(tmp_path, text, said):
    file = tmp_path / "train.tsv"
    file.write_text(text)
    with pytest.raises(SystemExit, match=said):
        data.read_texts(file)


def test_missing_data_are_said_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv(data.VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(SystemExit, match=f"--data or {data.VARIABLE}. Received: .*absent"):
        data.find_data()
    with pytest.raises(SystemExit, match="no .*train.tsv"):
        data.read_texts(tmp_path / "train.tsv")
    with pytest.raises(SystemExit, match=r"none for \['cr'\]"):
        data.check_tasks(tmp_path, ["cr"])


def test_the_folder_given_goes_before_the_environments(tmp_path, monkeypatch):
    given, other = tmp_path / "given", tmp_path / "other"
    given.mkdir()
    other.mkdir()
    monkeypatch.setenv(data.VARIABLE, str(other))
    assert data.find_data(given) == given
    assert data.find_data() == other


def test_a_stratified_sample_keeps_the_classes_proportions():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    for seed in range(5):
        chosen = data.stratified(labels, 20, seed)
        assert len(set(chosen)) == 20
        np.testing.assert_array_equal(np.bincount(labels[chosen]), [12, 6, 2])
        assert (np.diff(chosen) > 0).all()
    assert not np.array_equal(data.stratified(labels, 20, 0), data.stratified(labels, 20, 1))
    np.testing.assert_array_equal(data.stratified(labels, 1000, 0), np.arange(100))


def test_validation_is_cut_off_what_is_trained_on():
    labels = np.tile([0, 1], 50)
    train, validation = data.cut_validation(labels, 20, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(100))
    np.testing.assert_array_equal(np.bincount(labels[validation]), [10, 10])
    assert len(data.cut_validation(labels, 0, seed=0)[0]) == 100
