"""A prompt's one tensor to a file and back, and what is refused on both ways."""

import pickle
import sys

import numpy as np
import pytest
from keras import ops
from safetensors.numpy import save_file

import keras_mpt
from tests import tiny
from tests.files.attack import Attack
from tests.marks import IS_EAGER, slow_on_jax

L, WIDTH = 3, tiny.WIDTH
CONFIG = keras_mpt.MultitaskPromptTuningConfig


def tuned(backbone=None, **fields):
    fields = {"num_virtual_tokens": L, "num_tasks": 2, "task_names": ["tone", "topic"], **fields}
    config = CONFIG(task_init="normal", **fields)
    model = keras_mpt.prompt_tune(backbone or tiny.backbone("plain"), config)
    model.prompt.prompt_embeddings.assign_add(ops.ones(model.prompt.prompt_embeddings.shape))
    return model


@pytest.fixture
def model():
    return tuned(prompt_position="before")


@pytest.fixture(scope="module")
def t5():
    return tiny.backbone("t5")


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch writes the files here")


def prompt_of(model, task=None):
    folded = model if task is None else model.fold(task)
    return folded.prompt.get_peft_state_dict()["prompt_embeddings"]


def load(backbone, path, **kwargs):
    """On a backbone for which keras-hub has no language model."""
    return keras_mpt.load_prompt(backbone, path, "FEATURE_EXTRACTION", **kwargs)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.npy", "folder"])
def test_to_a_file_and_back(model, torch, name, dtype, tmp_path):
    if (name, dtype) == ("a.npy", "bfloat16"):
        with pytest.raises(ValueError, match="`dtype` should be 'float32' or 'float16'. Received"):
            model.export_prompt_embeds("topic", tmp_path / name, dtype=dtype)
        return
    model.export_prompt_embeds("topic", tmp_path / name, dtype=dtype)
    wanted = torch.tensor(prompt_of(model, "topic")).to(getattr(torch, dtype))
    loaded = load(model.backbone, tmp_path / name)
    assert isinstance(loaded.config, keras_mpt.PromptTuningConfig)
    assert (loaded.config.num_virtual_tokens, loaded.config.prompt_position) == (L, "before")
    np.testing.assert_array_equal(prompt_of(loaded), wanted.float().numpy())
    x = tiny.inputs(model.backbone)
    if dtype == "float32":
        found, expected = (ops.convert_to_numpy(m(x)) for m in (loaded, model.fold("topic")))
        np.testing.assert_array_equal(found, expected)
    assert loaded.trainable_variables  # It can be trained on.


def test_parameters_and_state_dicts_of_one_tensor_are_read(torch, model, tmp_path):
    value = torch.randn(4, WIDTH, dtype=torch.float64)
    torch.save(torch.nn.Parameter(value), tmp_path / "parameter.pt")
    torch.save({"prompt_embeddings": value}, tmp_path / "state.bin")
    for name in ("parameter.pt", "state.bin"):
        found = prompt_of(load(model.backbone, tmp_path / name))
        np.testing.assert_array_equal(found, value.float())


@pytest.mark.skipif(IS_EAGER, reason="Keras runs on PyTorch here")
def test_without_pytorch(model, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("a.npy", "a.safetensors"):
        model.export_prompt_embeds(0, tmp_path / name)
        found = prompt_of(load(model.backbone, tmp_path / name))
        np.testing.assert_array_equal(found, prompt_of(model, 0))
    for name in ("a.pt", "folder"):
        with pytest.raises(ImportError, match=r"needs PyTorch: `pip install keras-mpt\[torch\]`"):
            model.export_prompt_embeds(0, tmp_path / name)
    (tmp_path / "b.pt").write_bytes(b"x")
    with pytest.raises(ImportError, match=r"b\.pt' needs PyTorch: `pip install keras-mpt\[torch"):
        load(model.backbone, tmp_path / "b.pt")
    assert not (tmp_path / "folder").exists()


@slow_on_jax
def test_an_encoder_decoder_s_folder(torch, t5, tmp_path):
    model = tuned(t5, num_transformer_submodules=2)
    model.export_prompt_embeds(1, tmp_path / "both")
    loaded = keras_mpt.load_prompt(t5, tmp_path / "both")
    assert type(loaded).__name__ == "PromptTunedSeq2SeqLM" and loaded.config.submodules == 2
    np.testing.assert_array_equal(prompt_of(loaded), prompt_of(model, 1))
    halves = [torch.load(tmp_path / "both" / f"{s}.pt") for s in ("encoder", "decoder")]
    np.testing.assert_array_equal(np.concatenate(halves), prompt_of(model, 1))
    with pytest.raises(ValueError, match="`path` should be a folder where an encoder and a decod"):
        model.export_prompt_embeds(1, tmp_path / "one.pt")
    with pytest.raises(ValueError, match="`num_transformer_submodules` should be 1 for a table, w"):
        model.export_prompt_table(tmp_path / "table.npy")
    # A prompt of the encoder alone does not stay beside an older decoder's.
    one = tuned(t5)
    with pytest.raises(ValueError, match="`path` should not be there yet, or `overwrite` be True"):
        one.export_prompt_embeds(0, tmp_path / "both")
    one.export_prompt_embeds(0, tmp_path / "both", overwrite=True)
    assert [p.name for p in (tmp_path / "both").iterdir()] == ["encoder.pt"]
    loaded = load(t5, tmp_path / "both" / "encoder.pt")
    np.testing.assert_array_equal(prompt_of(loaded), prompt_of(one, 0))
    one.export_prompt_table(tmp_path / "table.npy", dtype="float16")
    table = np.load(tmp_path / "table.npy")
    assert table.shape == (2, L, WIDTH) and table.dtype == "float16"


def test_folders_that_are_no_prompt_s(model, torch, t5, tmp_path):
    folder = tmp_path / "p"
    folder.mkdir()
    with pytest.raises(ValueError, match="a folder with decoder.pt alone; .* with neither"):
        load(model.backbone, folder)
    for name, length in (("encoder.pt", 2), ("decoder.pt", 3)):
        torch.save(torch.zeros(length, WIDTH), folder / name)
    with pytest.raises(ValueError, match=r"decoder.pt alone; .* with \['encoder.pt', 'decoder.pt'"):
        load(model.backbone, folder)
    with pytest.raises(
        ValueError, match=r"have one shape. .* with shapes \[\(2, 16\), \(3, 16\)\]"
    ):
        keras_mpt.load_prompt(t5, folder)
    (folder / "encoder.pt").unlink()
    with pytest.raises(
        ValueError, match="a folder with encoder.pt, alone or with decoder.pt; `ker"
    ):
        keras_mpt.load_prompt(t5, folder)


def test_a_keras_hub_task_says_what_it_becomes(model, tmp_path):
    backbone = tiny.backbone("gpt2")
    np.save(tmp_path / "a.npy", np.ones((2, WIDTH), "float16"))
    import keras_hub

    task = keras_hub.models.GPT2CausalLM(backbone)
    assert type(keras_mpt.load_prompt(task, tmp_path / "a.npy")).__name__ == "PromptTunedCausalLM"
    made = keras_mpt.load_prompt(backbone, tmp_path / "a.npy", "SEQ_CLS", num_classes=2)
    assert made.config.task_type == "SEQ_CLS"


@pytest.mark.parametrize("suffix", ["pt", "safetensors", "npy"])
def test_what_is_there_is_not_overwritten(model, torch, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    model.export_prompt_embeds(0, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"`path` should not be there yet, or `overwrite` be True"):
        model.export_prompt_embeds(1, path)
    assert path.read_bytes() == before
    model.export_prompt_embeds(1, path, overwrite=True)
    np.testing.assert_array_equal(prompt_of(load(model.backbone, path)), prompt_of(model, 1))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("other", "a.npy"), r"`task` should be one of the tasks \['tone', 'topic'\], or an id in"),
        ((None, "a.npy"), r"`task` should be one of the tasks .* Received: task=None"),
        ((2, "a.npy"), r"an id in \[0, 2\). Received: task=2"),
        ((0, "a.h5"), r"ends in .pt, .safetensors or .npy, or a folder. Received: path="),
        ((0, ""), "`path` should be a file that ends in .* Received: path=''"),
        ((0, 3), "`path` should be a file that ends in .* Received: path=3"),
        ((0, "there.npy/a.npy"), "`path` should be a directory. Received: path=.*, a file"),
        ((0, "folder.npy"), "`path` should be a file. Received: a folder of that name: .*folder"),
    ],
)
def test_wrong_arguments(model, arguments, message, tmp_path):
    (tmp_path / "there.npy").touch()
    (tmp_path / "folder.npy").mkdir()
    task, path = arguments
    path = tmp_path / path if isinstance(path, str) and path else path
    with pytest.raises(ValueError, match=message):
        model.export_prompt_embeds(task, path)
    assert len(list(tmp_path.iterdir())) == 2


def test_wrong_options(model, tmp_path):
    file = tmp_path / "a.npy"
    with pytest.raises(ValueError, match="`scaled` should be True or False. Received: scaled=2"):
        model.export_prompt_embeds(0, file, scaled=2)
    with pytest.raises(ValueError, match="`overwrite` should be True or False. Received: overwr"):
        model.export_prompt_table(file, overwrite=None)
    with pytest.raises(ValueError, match="`dtype` should be 'float32' or 'float16'. Received: dt"):
        model.export_prompt_table(file, dtype="int8")
    for name in ("a.pt", "a", 5):
        with pytest.raises(ValueError, match="`path` should be a file that ends in .npy"):
            model.export_prompt_table(name if name == 5 else tmp_path / name)
    folded = model.fold(0)
    with pytest.raises(ValueError, match="`task` should be None: this model has one prompt and no"):
        folded.export_prompt_embeds(0, file)
    folded.export_prompt_table(file)
    assert np.load(file).shape == (1, L, WIDTH)
    with pytest.raises(ValueError, match="`prompt_position` should be 'before' for a folder: its"):
        tuned(prompt_position="after_start").export_prompt_embeds(0, tmp_path / "folder")
    model.backbone.trainable = True
    with pytest.raises(ValueError, match="`model.backbone` should be frozen"):
        model.export_prompt_embeds(0, tmp_path / "b.npy")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]


def test_numbers_that_a_file_cannot_hold(model, tmp_path):
    variable = model.prompt.prompt_embeddings
    large = np.ones(variable.shape)
    large[0] = 1e6
    variable.assign(large)
    model.prompt.prefix_task_cols.assign(ops.ones(model.prompt.prefix_task_cols.shape))
    model.prompt.prefix_task_rows.assign(ops.ones(model.prompt.prefix_task_rows.shape))
    message = r"`dtype` should hold numbers as large as 1e\+06, as 'float32' does. Received: dtype="
    with pytest.raises(ValueError, match=message):
        model.export_prompt_embeds(0, tmp_path / "a.npy", dtype="float16")
    large[0] = np.nan
    variable.assign(large)
    for export in (lambda p: model.export_prompt_embeds(0, p), model.export_prompt_table):
        with pytest.raises(
            ValueError, match="`prompt` should be finite .* with .* values that are"
        ):
            export(tmp_path / "a.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((L, 8), "float32"), r"width 16, .* with a tensor of shape \(3, 8\)"),
        (np.zeros(WIDTH, "float32"), r"of shape \(tokens, width\). .* with a tensor of shape \(16"),
        (np.zeros((2, L, WIDTH)), r"one prompt's tensor, .* with a tensor of shape \(2, 3, 16\)"),
        (np.zeros((0, WIDTH), "float32"), r"`path` should "),
        (
            np.zeros((L, WIDTH), "int32"),
            "float32, float64, float16 or bfloat16. Received: prompt o",
        ),
        (np.full((L, WIDTH), np.nan), "should be finite. Received: prompt with 48 values that are"),
        (np.zeros((40, WIDTH)), "`num_virtual_tokens` should leave room for tokens"),
    ],
)
def test_tensors_that_are_no_prompt(model, array, message, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=message):
        load(model.backbone, tmp_path / "a.npy")


def test_files_that_are_no_prompt(model, torch, tmp_path):
    adapter = tmp_path / "adapter"
    model.save_adapter(adapter)
    with pytest.raises(ValueError, match="one tensor; `keras_mpt.load_adapter` opens an adapter."):
        load(model.backbone, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="`keras_mpt.load_adapter` opens an adapter. .* neither"):
        load(model.backbone, adapter)
    with pytest.raises(ValueError, match="`path` should be a file. Received: no such file"):
        load(model.backbone, tmp_path / "gone.pt")
    with pytest.raises(ValueError, match="`path` should be a file that ends in"):
        load(model.backbone, None)
    with pytest.raises(ValueError, match="`scaled` should be True or False. Received: scaled='no'"):
        load(model.backbone, adapter, scaled="no")
    with pytest.raises(
        ValueError, match="`base` should be a keras-hub Backbone, .* Received: a str"
    ):
        keras_mpt.load_prompt("gpt2", adapter)
    save_file({"p": np.zeros((L, WIDTH), "float32")}, tmp_path / "a.safetensors")
    torch.save(torch.zeros(L, WIDTH), tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.zeros((L, WIDTH), "float32"))
    for name in ("a.safetensors", "a.pt", "a.npy"):
        content = (tmp_path / name).read_bytes()
        for part in (b"", content[:20], content[:-10], b"\xff" * 99):
            (tmp_path / name).write_bytes(part)
            with pytest.raises(ValueError, match="`path` should be a"):
                load(model.backbone, tmp_path / name)
    # Repeats one number: a few bytes that would fill any memory.
    torch.save(torch.zeros(1).expand(10**7, WIDTH), tmp_path / "a.pt")
    with pytest.raises(ValueError, match="a tensor larger than the file"):
        load(model.backbone, tmp_path / "a.pt")


def test_code_in_a_file_is_not_run(model, torch, tmp_path):
    marker = tmp_path / "marker"
    torch.save([Attack(marker)], tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Attack(marker), protocol=2))
    np.save(tmp_path / "a.npy", np.array([Attack(marker)], dtype=object), allow_pickle=True)
    for name in ("a.pt", "b.pt", "a.npy"):
        with pytest.raises(ValueError, match="`path` should be a") as error:
            load(model.backbone, tmp_path / name)
        assert "weights_only" not in str(error.value) and "allow_pickle" not in str(error.value)
    assert not marker.exists()
