"""Which process this is, where nobody or `TF_CONFIG` says so."""

import json

import keras
import pytest

from keras_mpt.fitting.together import check_same_mix
from keras_mpt.processes import gathered, is_writer, process_count, process_index
from tests.scaling import jobs

of_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="`TF_CONFIG` is TensorFlow's"
)


def test_one_process_writes_and_hears_itself():
    assert (process_count(), process_index(), is_writer()) == (1, 0, True)
    assert gathered("it") == ["it"]


def test_one_process_may_read_a_part():
    """To look at it, or to train on a part of the data: nobody else is there to disagree."""
    check_same_mix(jobs.mix("classifier", shard=(1, 2)))


@of_tensorflow
@pytest.mark.parametrize(
    ("task", "index"), [(("chief", 0), 0), (("worker", 0), 1), (("worker", 1), 2)]
)
def test_workers_by_their_config(task, index, monkeypatch):
    cluster = {"worker": ["a:1", "b:1"], "chief": ["c:1"], "ps": ["d:1"]}
    config = {"cluster": cluster, "task": {"type": task[0], "index": task[1]}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert (process_count(), process_index(), is_writer()) == (3, index, index == 0)


@of_tensorflow
def test_workers_read_the_whole_mix(monkeypatch):
    config = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    check_same_mix(jobs.mix("classifier"))
    with pytest.raises(ValueError) as raised:
        check_same_mix(jobs.mix("classifier", shard=(1, 2)))
    assert str(raised.value) == (
        "`shard` should be left out under TensorFlow's workers, whose strategy takes each one's "
        "part of a batch itself. Received: shard=(1, 2)"
    )
