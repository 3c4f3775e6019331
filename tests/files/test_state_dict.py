"""State dicts from files into layers, and what is refused on the way."""

import collections
import pickle
import sys

import numpy as np
import pytest
from keras import ops
from safetensors.numpy import save, save_file

import keras_mpt
from keras_mpt import read_state_dict
from tests.files.attack import Attack

SAFETENSORS, BIN = "adapter_model.safetensors", "adapter_model.bin"
SHAPES = {
    "prompt_embeddings": (4, 6),
    "prefix_task_cols": (4, 4, 2),
    "prefix_task_rows": (4, 2, 6),
}


def random_state(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype("float32") for name, shape in SHAPES.items()}


def assert_equal_states(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, strict=True, err_msg=name)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch writes the files here")


@pytest.fixture
def layer():
    layer = keras_mpt.MultitaskPromptEmbedding(4, 6, 4, num_ranks=2)
    layer.set_peft_state_dict(random_state())
    return layer


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("file", ["a.safetensors", "a.bin", "a.pt", "a.pth"])
def test_every_format_and_dtype(torch, file, dtype, tmp_path):
    state = {n: torch.tensor(v).to(getattr(torch, dtype)) for n, v in random_state().items()}
    if file == "a.safetensors":
        from safetensors.torch import save_file as save_torch

        save_torch(state, tmp_path / file)
    else:
        torch.save(state, tmp_path / file)
    # NumPy has no bfloat16; float32 holds each of its values exactly.
    wanted = {k: (v.float() if dtype == "bfloat16" else v).numpy() for k, v in state.items()}
    assert wanted["prompt_embeddings"].dtype.name == dtype.replace("bfloat16", "float32")
    assert_equal_states(read_state_dict(tmp_path / file), wanted)


def test_parameters_in_an_ordered_dict_of_an_older_pytorch(torch, tmp_path):
    pairs = ((k, torch.nn.Parameter(torch.tensor(v))) for k, v in random_state().items())
    state = collections.OrderedDict(pairs)
    torch.save(state, tmp_path / "a.bin", _use_new_zipfile_serialization=False)
    assert_equal_states(read_state_dict(tmp_path / "a.bin"), random_state())


def test_a_directory_gives_its_safetensors_or_else_its_bin(torch, tmp_path):
    torch.save({k: torch.tensor(v) for k, v in random_state(1).items()}, tmp_path / BIN)
    assert_equal_states(read_state_dict(tmp_path), random_state(1))
    save_file(random_state(2), tmp_path / SAFETENSORS)
    assert_equal_states(read_state_dict(str(tmp_path)), random_state(2))


def test_safetensors_need_no_pytorch(monkeypatch, tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 arrays are made with it")
    state = random_state()
    narrow = {"narrow": state["prompt_embeddings"].astype(ml_dtypes.bfloat16)}
    save_file({**state, **narrow}, tmp_path / SAFETENSORS)
    monkeypatch.setitem(sys.modules, "torch", None)
    wanted = {**state, "narrow": narrow["narrow"].astype("float32")}
    assert_equal_states(read_state_dict(tmp_path), wanted)


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth"])
def test_other_formats_name_the_extra_where_pytorch_is_missing(suffix, monkeypatch, tmp_path):
    (tmp_path / f"a.{suffix}").write_bytes(b"weights")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=rf"a\.{suffix}.*pip install keras-mpt\[torch\]"):
        read_state_dict(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("kind", ["pickle", "zip", "older"])
def test_code_in_a_file_is_not_run(torch, kind, tmp_path):
    marker, file = tmp_path / "marker", tmp_path / "a.bin"
    state = {"prompt_embeddings": torch.zeros(2), "more": Attack(marker)}
    if kind == "pickle":
        file.write_bytes(pickle.dumps({"more": Attack(marker)}, protocol=2))
        pickle.loads(file.read_bytes())["more"].close()
    else:
        torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")
        torch.load(file, weights_only=False)["more"].close()
    # So the attack works on a reader that is not careful.
    marker.unlink()
    with pytest.raises(ValueError, match="`path` should be a PyTorch state dict of plain") as error:
        read_state_dict(file)
    assert not marker.exists()
    # PyTorch's own words go on to say how to run it.
    assert "weights_only" not in str(error.value)
    assert "Nothing in it was run; ask its author for a .safetensors file" in str(error.value)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "older"])
def test_truncated_files(torch, kind, tmp_path):
    state = random_state()
    file = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.bin")
    if kind == "safetensors":
        save_file(state, file)
    else:
        tensors = {k: torch.tensor(v) for k, v in state.items()}
        torch.save(tensors, file, _use_new_zipfile_serialization=kind == "zip")
    content = file.read_bytes()
    read_state_dict(file)
    for length in {*range(1, len(content), 37), len(content) - 1}:
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match="Received: .* which is truncated"):
            read_state_dict(file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"", "Received: .*a.safetensors', an empty file"),
        ("a.bin", b"", "Received: .*a.bin', an empty file"),
        ("a.safetensors", b"not weights at all", "be a safetensors file"),
        ("a.safetensors", b"\xff" * 64, "be a safetensors file"),
        ("a.bin", b"not weights at all", "be a PyTorch state dict"),
        ("a.bin", save({"x": np.zeros(3)}), "be a PyTorch state dict"),
        ("a.h5", b"\x89HDF", "end in .safetensors, .bin, .pt or .pth"),
        ("weights", b"x", "end in .safetensors, .bin, .pt or .pth"),
    ],
)
def test_foreign_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"`path` should .*{message}"):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize("what", ["list", "number", "nested", "key", "float8"])
def test_pytorch_files_of_other_things(torch, what, tmp_path):
    content, message = {
        "list": ([torch.zeros(2)], "a list"),
        "number": ({"a": torch.zeros(2), "b": 3}, "a int under 'b'"),
        "nested": ({"state_dict": {"a": torch.zeros(2)}}, "a dict under 'state_dict'"),
        "key": ({1: torch.zeros(2)}, "a Tensor under 1"),
        "float8": ({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, "Float8"),
    }[what]
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"should be a PyTorch state dict of .*{message}"):
        read_state_dict(tmp_path / "a.pt")


def test_missing_paths(tmp_path):
    with pytest.raises(ValueError, match="`path` should be a file or an.*no such file.*gone.bin"):
        read_state_dict(tmp_path / "gone.bin")
    message = f"should be a directory with {SAFETENSORS} or {BIN}.*has neither"
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"prefix_task_rows": None},
            r"Received: there without \['prefix_task_rows'\] and with unk",
        ),
        (
            {"prefix_rows": np.zeros(2)},
            r"Received: there without \[\] and with unknown \['prefix_r",
        ),
        (
            {"prefix_task_rows": np.zeros((4, 2, 7), "float32")},
            r"`prefix_task_rows` in `there` should have shape \(4, 2, 6\).*\(4, 2, 7\)",
        ),
        (
            {"prefix_task_rows": np.zeros((4, 12), "float32")},
            r"`prefix_task_rows` in `there` should have shape \(4, 2, 6\).*\(4, 12\)",
        ),
        # As many values, and NumPy would broadcast it.
        (
            {"prefix_task_rows": np.zeros((1, 4, 2, 6), "float32")},
            r"should have shape \(4, 2, 6\).*\(1, 4, 2, 6\)",
        ),
        ({"prefix_task_rows": 0.5}, r"should have shape \(4, 2, 6\).*\(\)"),
        (
            {"prefix_task_rows": np.zeros((4, 2, 6), "int64")},
            "should be float32, float64, float16 or bfloat16.*prefix_task_rows of dtype int64",
        ),
        ({"prefix_task_rows": np.zeros((4, 2, 6), bool)}, "prefix_task_rows of dtype bool"),
        ({"prefix_task_rows": np.zeros((4, 2, 6), "complex64")}, "of dtype complex64"),
        ({"prefix_task_rows": np.full((4, 2, 6), np.nan)}, "should be finite.* 48 values that are"),
        (
            {"prefix_task_rows": np.where(np.arange(48) == 7, -np.inf, 1.0).reshape(4, 2, 6)},
            "should be finite.*prefix_task_rows with 1 values that are not",
        ),
    ],
)
def test_refused_before_anything_is_changed(layer, change, message):
    """Only the last weight is wrong, so one that assigned as it went would be found out."""
    state = {**random_state(1), **change}
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        layer.set_peft_state_dict(state, source="there")
    assert_equal_states(layer.get_peft_state_dict(), random_state())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_become_float32(layer, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it has NumPy's bfloat16").bfloat16
    state = {name: value.astype(dtype) for name, value in random_state(1).items()}
    layer.set_peft_state_dict(state)
    assert_equal_states(
        layer.get_peft_state_dict(), {k: v.astype("float32") for k, v in state.items()}
    )


def test_tensors_of_the_backend_and_of_pytorch(layer, torch):
    layer.set_peft_state_dict({k: ops.convert_to_tensor(v) for k, v in random_state(1).items()})
    assert_equal_states(layer.get_peft_state_dict(), random_state(1))
    parameters = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in random_state(2).items()}
    layer.set_peft_state_dict(parameters)
    assert_equal_states(layer.get_peft_state_dict(), random_state(2))


def test_loaded_arrays_are_copied(layer):
    state = random_state(1)
    layer.set_peft_state_dict(state)
    for value in state.values():
        value += 1
    assert_equal_states(layer.get_peft_state_dict(), random_state(1))


def test_peft_s_other_name_for_the_shared_prompt(layer):
    state = random_state(1)
    layer.set_peft_state_dict({"embedding.weight": state.pop("prompt_embeddings"), **state})
    assert_equal_states(layer.get_peft_state_dict(), random_state(1))


def test_round_trip_keeps_every_byte(layer, tmp_path):
    save_file(layer.get_peft_state_dict(), tmp_path / "a.safetensors")
    other = keras_mpt.MultitaskPromptEmbedding(4, 6, 4, num_ranks=2)
    other.set_peft_state_dict(read_state_dict(tmp_path / "a.safetensors"))
    assert save(other.get_peft_state_dict()) == (tmp_path / "a.safetensors").read_bytes()
