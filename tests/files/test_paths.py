"""What may be part of a path, and where something may be written."""

import json
import os

import pytest

import keras_mpt
from keras_mpt.files.paths import check_target, is_file_name
from keras_mpt.hugging_face.weights import open_weights
from tests.marks import only_torch

pytestmark = only_torch

WRONG_NAMES = [
    *("", ".", "..", "../a", "a/b", "/a", "a/", "a\\b", "..\\a", "c:a", "c:\\a"),
    *("a\0", "a\nb", "\x7f", "\ud800", "a" * 250, "é" * 101, None, 3, b"a", ["a"]),
]
NAMES = ["a", "mnli: matched", "a.b", "..a", ".hidden", "日本", "a" * 200, "?"]


T5 = {"model_type": "t5", **dict.fromkeys(("vocab_size", "num_layers", "num_heads"), 2)}
T5 |= dict.fromkeys(("d_model", "d_ff", "d_kv"), 2)


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_no_name_of_a_folder(name):
    assert not is_file_name(name)


@pytest.mark.parametrize(
    "name", ["a", "mnli: matched", "a.b", "..a", ".hidden", "日本", "a" * 200, "?"]
)
def test_a_name_of_a_folder(name, tmp_path):
    assert is_file_name(name)
    (tmp_path / name).mkdir()


def wrong_targets(folder):
    """Where nothing can be written, by the words that say why."""
    (folder / "file").write_text("mine")
    (folder / "link").symlink_to(folder / "gone")
    return {
        "', a file": folder / "file",
        f"', under '{folder}/file', a file": folder / "file" / "a" / "b",
        "link', a link to nothing": folder / "link",
        ", with a NUL in it": f"{folder}/a\0b",
        ", with a name of 300 bytes": folder / ("a" * 300) / "b",
        "directory=''": "",
        "directory=None": None,
        "directory=3": 3,
        "directory=b'a'": b"a",
    }


def test_where_nothing_can_be_written(tmp_path):
    for reason, directory in wrong_targets(tmp_path).items():
        with pytest.raises(ValueError, match="`directory` should be a directory. Rec") as raised:
            check_target("directory", directory)
        assert str(raised.value).endswith(reason)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_where_nothing_may_be_written(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(ValueError, match="nothing may be written in"):
        check_target("directory", tmp_path / "a" / "b")


def test_saving_there(tmp_path):
    config = keras_mpt.PromptTuningConfig(num_virtual_tokens=4)
    for directory in wrong_targets(tmp_path).values():
        with pytest.raises(ValueError, match="`directory` should be a directory. Rec"):
            config.save_pretrained(directory)


def test_a_new_directory_in_new_ones(tmp_path):
    assert check_target("directory", tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRONG_NAMES[:15])
def test_an_index_of_shards(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(T5))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"shared.weight": name}}))
    for read in (keras_mpt.t5_from_pretrained, lambda folder: open_weights(str(folder))):
        with pytest.raises(ValueError, match="`weight_map` should be a mapping of each weight"):
            read(tmp_path)
