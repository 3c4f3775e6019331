"""An adapter's files belong together: whoever is killed, reads meanwhile, or mixes them."""

import itertools
import json
import os
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import keras_mpt
from keras_mpt.adapters.reading import read_adapter
from keras_mpt.files.adapter_files import CHECKSUM
from keras_mpt.files.card_file import CARD_NAME
from tests.marks import only_torch
from tests.soak import files as soak
from tests.soak.adapters import PAIR, held, make_pair

WEIGHTS, CONFIG, OWN = "adapter_model.safetensors", "adapter_config.json", "keras_mpt_config.json"
FILES = (WEIGHTS, CONFIG, OWN)

# Files are the same whichever backend writes them.
pytestmark = only_torch


@pytest.fixture(scope="module")
def models():
    return make_pair()


@pytest.fixture
def saved(models, tmp_path):
    """The directory of the first of the pair, and that of the second."""
    for value, model in models.items():
        model.save_adapter(tmp_path / str(value))
    return tmp_path / "1.0", tmp_path / "2.0"


def contents(directory):
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}


def save_and_die(model, target, call):
    """Saves in a process that is killed as it makes a call of the system; whether it was."""
    child = os.fork()
    if not child:
        count = itertools.count(1)

        def dying(function):
            def run(*args, **kwargs):
                if next(count) == call:
                    os._exit(9)
                return function(*args, **kwargs)

            return run

        for name in ("mkdir", "fsync", "replace", "rename", "unlink", "rmdir"):
            setattr(os, name, dying(getattr(os, name)))
        try:
            model.save_adapter(target, overwrite=True)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


def peft_s(directory):
    """Makes an adapter what PEFT would have written: nothing ties its files."""
    save_file(load_file(directory / WEIGHTS), directory / WEIGHTS, metadata={"format": "pt"})
    (directory / OWN).unlink()


@pytest.mark.parametrize("before", ["ours", "PEFT's", "no adapter", "nothing"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(models, before, tmp_path):
    target = tmp_path / "adapter"

    def found():
        if before == "PEFT's" and not (target / OWN).exists():
            return set(map(float, load_file(target / WEIGHTS)["prompt_embeddings"].flat)).pop()
        return held(target) if (target / CONFIG).exists() or (target / WEIGHTS).exists() else 1.0

    seen = []
    for call in itertools.count(1):
        shutil.rmtree(target, ignore_errors=True)
        if before == "no adapter":
            target.mkdir()
        elif before != "nothing":
            models[1.0].save_adapter(target)
        if before == "PEFT's":
            peft_s(target)
        killed = save_and_die(models[2.0], target, call)
        seen.append(found())
        assert seen[-1] in PAIR, (call, seen[-1])
        if not killed:
            break
        # Stages of processes that were killed go with the next save.
        models[2.0].save_adapter(target, overwrite=True)
        assert held(target) == 2.0
        assert {p.name for p in target.iterdir()} == {*FILES, CARD_NAME}
        assert [p.name for p in tmp_path.iterdir()] == ["adapter"]
    assert seen == sorted(seen) and {1.0, 2.0} == set(seen) and len(seen) > 5


def test_a_few_kills_and_reads_beside_writers(models, tmp_path):
    """`make soak` runs more of them."""
    models[1.0].save_adapter(tmp_path / "adapter")
    assert set(soak.kill(models, tmp_path / "adapter", 10)) <= set(PAIR)
    assert set(soak.read_beside_writers(models, tmp_path / "adapter", 50)) <= set(PAIR)


@pytest.mark.parametrize("taken", [c for n in (1, 2) for c in itertools.combinations(FILES, n)])
def test_files_of_two_adapters_are_refused(saved, taken):
    ours, other = saved
    for name in taken:
        shutil.copy(other / name, ours / name)
    with pytest.raises(ValueError, match="should .*Received: ") as raised:
        read_adapter(ours)
    assert str(ours) in str(raised.value)


def test_swapped_labels_are_named(saved):
    ours, other = saved
    shutil.copy(other / OWN, ours / OWN)
    with pytest.raises(ValueError) as raised:
        keras_mpt.PromptTuningConfig.from_pretrained(ours)
    assert str(raised.value) == (
        "`num_classes` in keras_mpt_config.json should be what it was when the weights beside it "
        "were saved, [2, 3]; put it back, or save the adapter anew. Received: num_classes=[3, 2] "
        f"in {str(ours)!r}"
    )


def test_bytes_do_not_tell_what_was_there_before(models, saved):
    ours, other = saved
    models[2.0].save_adapter(ours, overwrite=True)
    assert contents(ours) == contents(other)
    peft_s(ours)
    models[2.0].save_adapter(ours, overwrite=True)
    assert contents(ours) == contents(other)


def test_without_our_config_the_heads_and_the_place_are_the_same(models, saved):
    directory = saved[0]
    (directory / OWN).unlink()
    loaded = keras_mpt.load_adapter(models[1.0].backbone, directory)
    assert loaded.num_classes == [2, 3]
    assert loaded.config.prompt_position == "after_start"
    assert loaded.config.task_names == ["good", "bad"]
    assert keras_mpt.PromptTuningConfig.from_pretrained(directory).task_names == ["good", "bad"]
    (directory / CONFIG).unlink()
    with pytest.raises(ValueError, match="`adapter_config.json` should be a file in the adapter's"):
        keras_mpt.load_adapter(models[1.0].backbone, directory)


def test_what_may_be_edited_by_hand(models, saved):
    directory = saved[0]
    edit(directory / CONFIG, base_model_name_or_path="moved/here", peft_version="9", revision="x")
    edit(directory / OWN, seed=7, train_shared=False)
    edit(directory / OWN, "backbone", CHECKSUM)
    config = keras_mpt.load_adapter(models[1.0].backbone, directory).config
    assert config.base_model_name_or_path == "moved/here" and config.revision == "x"
    assert config.seed == 7 and config.train_shared is False


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        (CONFIG, "task_type", "TOKEN_CLS"),
        (CONFIG, "num_transformer_submodules", None),
        (OWN, "task_names", ["bad", "good"]),
        (OWN, "num_classes", [3, 2]),
        (OWN, "pooling", "last"),
        (OWN, "prompt_position", "before"),
        (OWN, "head_config", {"dropout": 0.5}),
        (OWN, "a_field_of_later", 1),
        (OWN, CHECKSUM, "0" * 64),
        (OWN, "backbone", {"class_name": "Other"}),
    ],
)
def test_what_may_not_be_edited_by_hand(saved, file, field, value):
    edit(saved[0] / file, **{field: value})
    message = f"`{field}` in {file} should be what it was when the weights"
    with pytest.raises(ValueError, match=message):
        read_adapter(saved[0])


def test_weights_of_another_origin_beside_our_config(models, saved):
    directory = saved[0]
    state = load_file(directory / WEIGHTS)
    save_file(state, directory / WEIGHTS)
    assert held(directory) == 1.0  # The same numbers, as PEFT would save them again.
    save_file({**state, "prompt_embeddings": state["prompt_embeddings"] + 1}, directory / WEIGHTS)
    with pytest.raises(ValueError) as raised:
        read_adapter(directory)
    assert str(raised.value) == (
        "`adapter_model.safetensors` should be the weights that keras_mpt_config.json was saved "
        f"with. Received: {str(directory)!r} with other weights. Where these are right, take "
        "`weights_sha256` out of keras_mpt_config.json, or remove that file if PEFT trained them"
    )
    edit(directory / OWN, CHECKSUM)
    assert read_adapter(directory).state["prompt_embeddings"].max() == 2


def test_one_bit_of_a_weight(saved):
    file = saved[0] / WEIGHTS
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    message = "should be a safetensors file. Received: .*which is damaged: its checksum is that of"
    for read in (read_adapter, keras_mpt.read_state_dict):
        with pytest.raises(ValueError, match=message):
            read(saved[0])


def test_peft_reads_the_files(saved):
    peft = pytest.importorskip("peft")
    from peft.utils import load_peft_weights

    found = load_peft_weights(str(saved[0]))
    assert set(found) == set(load_file(saved[0] / WEIGHTS))
    assert all(bool((value == 1).all()) for value in found.values())
    assert peft.PeftConfig.from_pretrained(str(saved[0])).num_tasks == 2
    with safe_open(saved[0] / WEIGHTS, framework="numpy") as opened:
        assert opened.metadata()["format"] == "pt"


def test_an_adapter_is_written_by_one_at_a_time(models, tmp_path):
    """Two that both see no adapter: the second finds the first's."""
    children = []
    for value in PAIR:
        child = os.fork()
        if not child:
            try:
                models[value].save_adapter(tmp_path / "adapter")
                os._exit(0)
            except ValueError as error:
                os._exit(3 if "should hold no adapter yet" in str(error) else 1)
            finally:
                os._exit(1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0, 3]
    assert held(tmp_path / "adapter") == list(PAIR)[codes.index(0)]


def edit(file, *left_out, **changes):
    """Changes a JSON file by hand."""
    values = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in values.items() if k not in left_out}))


@pytest.mark.parametrize("directory", [None, 3, "", "gone", "a\0b", "a" * 300, b"a"])
def test_no_directory(directory):
    with pytest.raises(ValueError, match="should be .* adapter's directory. Received: "):
        read_adapter(directory)


def test_a_pipe_is_not_waited_for(saved):
    for name in FILES:
        (saved[0] / name).unlink()
        os.mkfifo(saved[0] / name)
    with pytest.raises(ValueError, match="`adapter_config.json` should be a file in the adapter's"):
        read_adapter(saved[0])


def test_a_directory_of_named_adapters_names_them(models, tmp_path):
    models[1.0].save_adapter(tmp_path / "tone")
    with pytest.raises(ValueError) as raised:
        keras_mpt.load_adapter(models[1.0].backbone, tmp_path)
    assert str(raised.value) == (
        "`adapter_config.json` should be a file in the adapter's directory. Received: no such "
        f"file: {str(tmp_path / CONFIG)!r}. Adapters in folders of their own are there: ['tone']; "
        "give one of these folders"
    )
    assert np.array_equal(read_adapter(tmp_path / "tone").state["prompt_embeddings"][0, 0], 1)
