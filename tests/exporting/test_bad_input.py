"""One clear error each, before any work, and nothing lost."""

import keras
import pytest

from keras_mpt.exporting import export as exporting
from keras_mpt.exporting.formats import FORMATS
from tests.exporting import cases
from tests.exporting.measure import formats_here
from tests.marks import slow_on_jax

BACKEND = keras.backend.backend()
HERE = formats_here()[0]
SUFFIX = FORMATS[HERE].suffix


@pytest.fixture(scope="module")
def model():
    return cases.make("text classifier (BERT)")


@pytest.fixture(autouse=True)
def _no_work(request, monkeypatch):
    """Nothing is traced, but where a test says so."""
    if "fails" in request.node.name:
        return
    monkeypatch.setattr(exporting, "exchanging", lambda folder: pytest.fail("work was begun"))


def refused(model, path, match, error=ValueError, **kwargs):
    before = sorted(path.parent.rglob("*")) if hasattr(path, "parent") else None
    with pytest.raises(error, match=match):
        model.export(path, **{"format": HERE, **kwargs})
    if before is not None:
        assert sorted(path.parent.rglob("*")) == before


def test_an_unknown_format(model, tmp_path):
    match = "`format` should be 'tf_saved_model', .* or 'torch'. Received: format='tflite'"
    refused(model, tmp_path / "m", match, format="tflite")


@pytest.mark.parametrize("format", [f for f in FORMATS if f not in formats_here()])
def test_a_format_that_the_backend_cannot_write(model, tmp_path, format):
    match = rf"`format` should be another on the {BACKEND} backend: .*KERAS_BACKEND=.*'{format}'"
    refused(model, tmp_path / ("m" + FORMATS[format].suffix), match, format=format)


def test_a_missing_package_is_named_with_the_extra(model, tmp_path, monkeypatch):
    format = {"tensorflow": "onnx", "torch": "onnx", "jax": "litert"}[BACKEND]
    missing = FORMATS[format].packages[BACKEND][0]
    find = exporting.FORMATS[format].missing
    assert find(BACKEND) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    match = rf"pip install 'keras-mpt\[export\]'. Received: format='{format}' without .*'{missing}'"
    refused(model, tmp_path / ("m" + FORMATS[format].suffix), match, ImportError, format=format)


@pytest.mark.parametrize("path", [None, 3, b"m", "", "a\nb"])
def test_what_is_no_path(model, path):
    refused(model, path, r"`filepath` should be (a path|the path of a folder)")


def test_another_suffix(model, tmp_path):
    format = [f for f in formats_here() if FORMATS[f].suffix][0]
    match = rf"`filepath` should be a path that ends in {FORMATS[format].suffix}"
    refused(model, tmp_path / "m.h5", match, format=format)


def test_a_folder_that_is_not_there(model, tmp_path):
    match = "`filepath` should be in a folder that is there"
    refused(model, tmp_path / "none" / f"m{SUFFIX}", match)


def test_a_path_that_is_there(model, tmp_path):
    path = tmp_path / f"m{SUFFIX}"
    path.mkdir() if HERE == "tf_saved_model" else path.write_text("mine")
    refused(model, path, "`filepath` should be a new path, or `overwrite` True")


def test_overwrite_takes_no_folder_that_is_something_else(model, tmp_path):
    path = tmp_path / f"m{SUFFIX}"
    path.mkdir()
    (path / "mine").write_text("mine")
    refused(model, path, "`filepath` should be a new path, or that of a", overwrite=True)


@pytest.mark.parametrize("name", ["batch_size", "sequence_length"])
@pytest.mark.parametrize("size", [0, -1, 2.0, True, "8"])
def test_sizes(model, tmp_path, name, size):
    path = tmp_path / f"m{SUFFIX}"
    refused(model, path, f"`{name}` should be a positive integer", **{name: size})


def test_more_tokens_than_there_are_positions(model, tmp_path):
    match = "`sequence_length` should have at most 29 tokens: the backbone has 32 positions"
    refused(model, tmp_path / f"m{SUFFIX}", match, sequence_length=30)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"task_ids": None}, r"should give 'task_ids' the shape \(batch,\) and int32"),
        ({"token_ids": (None,)}, r"should give 'token_ids' the shape \(batch, sequence\)"),
        ({"token_ids": keras.InputSpec("int64", (None, 4))}, "and int32"),
        ({"token_ids": (None, 4), "padding_mask": (None, 5)}, "one size for 'sequence'"),
        ({"other": (None, None)}, "should be a dict with"),
        ({"token_ids": (None, 40), "padding_mask": (None, 40), "segment_ids": (None, 40)}, "29"),
    ],
)
def test_an_input_signature_of_another_form(model, tmp_path, change, match):
    names = model.model_inputs.names
    given = {n: (None,) if n == "task_ids" else (None, None) for n in names} | change
    refused(model, tmp_path / f"m{SUFFIX}", match, input_signature=given)


def test_two_ways_to_fix_a_size(model, tmp_path):
    match = "`input_signature` should be left out where `batch_size` or `sequence_length`"
    refused(model, tmp_path / f"m{SUFFIX}", match, input_signature={}, batch_size=2)


@pytest.mark.parametrize("name", ["verbose", "overwrite", "text_to_labels"])
def test_flags(model, tmp_path, name):
    refused(model, tmp_path / f"m{SUFFIX}", f"`{name}` should be True or False", **{name: "yes"})


def test_text_to_labels_needs_a_tokenizer_in_the_graph(model, tmp_path):
    match = "`preprocessor` should be given" if BACKEND == "tensorflow" else "no other graph can"
    refused(model, tmp_path / f"m{SUFFIX}", match, text_to_labels=True)


@slow_on_jax
def test_a_quantized_backbone(tmp_path):
    quantized = cases.make("causal LM (GPT-2)")
    quantized.quantize("int8")
    match = "`backbone` should not be quantized .*quantized to \\['int8'\\]"
    refused(quantized, tmp_path / f"m{SUFFIX}", match)


def test_other_dtypes_where_the_runtime_has_float32_alone(tmp_path):
    half = cases.make("causal LM (GPT-2)", dtype="bfloat16")
    format = {"tensorflow": "onnx", "torch": "onnx", "jax": "litert"}[BACKEND]
    match = rf"opened with dtype='float32' for format='{format}'. Received: .*'bfloat16'"
    refused(half, tmp_path / ("m" + FORMATS[format].suffix), match, format=format)


@pytest.mark.skipif(BACKEND != "jax", reason="open sizes are refused on JAX alone")
def test_open_sizes_for_litert(model, tmp_path):
    match = "`batch_size` and `sequence_length` should be given for format='litert'"
    refused(model, tmp_path / "m.tflite", match, format="litert", sequence_length=4)


@pytest.mark.parametrize("format", formats_here())
def test_what_was_there_stays_where_writing_fails(model, tmp_path, monkeypatch, format):
    path = tmp_path / ("m" + FORMATS[format].suffix)
    if format == "tf_saved_model":
        path.mkdir()
        (path / "saved_model.pb").write_text("old")
    for file in FORMATS[format].files(path) if FORMATS[format].suffix else []:
        file.write_text("old")
    before = sorted(tmp_path.rglob("*"))

    def half_written(model, signature, place):
        place.write_text("half")
        raise OSError("the disk is full")

    monkeypatch.setitem(exporting._WRITERS, format, half_written)
    with pytest.raises(OSError, match="the disk is full"):
        model.export(path, format, overwrite=True, batch_size=2, sequence_length=4)
    assert sorted(tmp_path.rglob("*")) == before
    assert all(p.read_text() == "old" for p in before if p.is_file())


def test_the_new_one_takes_the_place_of_the_old_where_nothing_fails(
    model, tmp_path, monkeypatch, capsys
):
    path = tmp_path / f"m{SUFFIX}"
    if HERE == "tf_saved_model":
        path.mkdir()
        (path / "saved_model.pb").write_text("old")
    else:
        path.write_text("old")

    def written(model, signature, place):
        place.write_text("new")

    monkeypatch.setitem(exporting._WRITERS, HERE, written)
    model.export(path, HERE, overwrite=True)
    assert path.read_text() == "new" and sorted(tmp_path.iterdir()) == [path]
    assert "token_ids [None, None]" in capsys.readouterr().out


def test_a_failed_move_puts_the_others_back(tmp_path, monkeypatch):
    from keras_mpt.files import exchange

    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    take = exchange._take_place

    def one_only(path, place, old):
        take(path, place, old)
        if place.name == "b":
            raise OSError("no more")

    monkeypatch.setattr(exchange, "_take_place", one_only)
    with pytest.raises(OSError, match="no more"), exchange.exchanging(tmp_path) as made:
        for name in ("a", "b", "c"):
            (made / name).write_text("new")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old", "b": "old"}
