"""What cannot be resumed is refused before the first step, and nothing is changed."""

import json

import numpy as np
import pytest
from keras import ops
from safetensors.numpy import save_file

import keras_mpt
from keras_mpt import ResumeTraining
from keras_mpt.training.run_state import FILE_NAME, read_state, write_state
from tests.marks import only_eager
from tests.training import runs


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """The directory of a run that was interrupted in its first epoch."""
    directory = tmp_path_factory.mktemp("state") / "run"
    with pytest.raises(runs.Interrupted):
        runs.fit(runs.make_model(), directory, 3)
    return directory


def refused(directory, model=None, **kwargs):
    """The words of the error, after checking that nothing was trained or written."""
    model = runs.make_model() if model is None else model
    file = directory / FILE_NAME
    before = [ops.convert_to_numpy(v) for v in model.variables]
    content = file.read_bytes() if file.is_file() else None
    with pytest.raises(ValueError) as raised:
        runs.fit(model, directory, 1, **kwargs)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    assert (file.read_bytes() if file.is_file() else None) == content
    return str(raised.value)


def another(directory, differs):
    """The words that name what differs."""
    return (
        "`directory` should hold a state of this run, or none. Received: "
        f"{str(directory / FILE_NAME)!r} of another run: {differs}"
    )


@pytest.mark.parametrize(
    ("kwargs", "differs"),
    [
        ({"num_virtual_tokens": 4}, "config.num_virtual_tokens is 3 there, 4 here; trained.0 is"),
        ({"task_names": ["tone", "other"]}, "config.task_names.1 is 'topic' there, 'other' here"),
        ({"seed": 1}, "frozen_weights is '"),
        ({"optimizer": "sgd"}, "compile.optimizer.class_name is 'MultiOptimizer' there, 'SGD'"),
    ],
)  # fmt: skip
def test_another_model(kwargs, differs, state):
    mix = runs.make_mix()
    mix.task_names = kwargs.get("task_names", mix.task_names)
    error = refused(state, runs.make_model(**kwargs), mix=mix)
    assert error.startswith(another(state, ""))
    assert differs in error


@only_eager
@pytest.mark.parametrize(
    ("kwargs", "differs"),
    [
        ({"seed": 4}, "mix.seed is 3 there, 4 here"),
        ({"batch_size": 8}, "mix.batch_size is 4 there, 8 here"),
        ({"steps": 6}, "mix.steps is 5 there, 6 here"),
        (
            {"weights": [1, 2], "shuffle": False},
            "mix.weights.1 is 1.0 there, 2.0 here; mix.shuffle is True there, False here",
        ),
    ],
)
def test_another_mix(kwargs, differs, state):
    error = refused(state, mix=runs.make_mix(**kwargs))
    assert error == another(state, differs)


@only_eager
def test_other_data(state):
    rows = {name: np.ones((11, 5), "int32") for name in ("token_ids", "padding_mask")}
    tasks = {name: (rows, np.zeros(11, "int32")) for name in runs.NAMES}
    error = refused(state, mix=keras_mpt.TaskMix(tasks, 4, steps=5, seed=3))
    assert error.startswith(another(state, "mix.checksums.0 is "))


@only_eager
def test_another_learning_rate(state):
    """Three optimizers stand in one, and each has its rate."""
    model = runs.make_model()
    model.optimizer.optimizers[0].learning_rate = 0.25
    error = refused(state, model)
    assert error.startswith(another(state, "compile.optimizer.config.optimizer_map.config."))
    assert error.endswith(".learning_rate is 0.009999999776482582 there, 0.25 here")


@only_eager
def test_another_backbone_of_the_same_shapes(state):
    model = runs.make_model()
    kernel = next(v for v in model.backbone.weights if v.name == "embeddings")
    kernel.assign(ops.convert_to_numpy(kernel) * 2)
    assert refused(state, model).startswith(another(state, "frozen_weights is '"))


@only_eager
@pytest.mark.parametrize("size", [0, 5, 2000, -1])
def test_a_broken_file(size, state, tmp_path):
    content = (state / FILE_NAME).read_bytes()
    (tmp_path / FILE_NAME).write_bytes(content[:size])
    error = refused(tmp_path)
    assert error.startswith(
        "`directory` should hold a whole state of a run, or none. Received: "
        f"{str(tmp_path / FILE_NAME)!r}, which is truncated or of another kind ("
    )
    assert error.endswith("Without that file the run starts anew")


@only_eager
def test_a_file_of_another_kind(tmp_path):
    model = runs.make_model()
    model.save_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / FILE_NAME)
    assert "which is truncated or of another kind ('keras_mpt')" in refused(tmp_path, model)


@only_eager
def test_a_later_format(state, tmp_path):
    about, values = read_state(state)
    write_state(tmp_path, {**about, "format": 2}, values)
    assert "(its format is 2, not 1)" in refused(tmp_path)


@only_eager
def test_values_of_other_shapes(state, tmp_path):
    about, values = read_state(state)
    write_state(tmp_path, about, {**values, "optimizer/3": np.zeros((2, 2))})
    error = refused(tmp_path)
    assert error.startswith(
        "`directory` should hold a state of this run, with `optimizer/3` of shape ("
    )
    assert error.endswith("in which it is of shape (2, 2)")


@only_eager
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("epoch", value) for value in (-1, "1", 0.5, None, True, [], 10**12)),
        *(("step", value) for value in (-1, "1", None, 5, 10**6)),
        *(("mix_epoch", value) for value in (-1, {}, None)),
        *(("logs", value) for value in (3, {}, [3], [["x", {}]], [[0, 3]], [[0]])),
        *(("stopped", value) for value in (0, "no", None)),
        *(("run", value) for value in (3, [], "x", None)),
    ],
)
def test_a_field_of_another_type(field, value, state, tmp_path):
    about, values = read_state(state)
    write_state(tmp_path, {**about, field: value}, values)
    error = refused(tmp_path)
    assert error.startswith("`directory` should hold a ") and field in error


@only_eager
@pytest.mark.parametrize("field", ["epoch", "step", "mix_epoch", "logs", "stopped", "run"])
def test_a_field_that_is_missing(field, state, tmp_path):
    about, values = read_state(state)
    write_state(tmp_path, {k: v for k, v in about.items() if k != field}, values)
    assert f"truncated or of another kind ('{field}')" in refused(tmp_path)


@only_eager
@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("trained/0", lambda v: v * np.nan, "`trained/0` has 24 values that are not"),
        ("optimizer/3", lambda v: v + np.inf, "`optimizer/3` has "),
        ("trained/0", lambda v: v.astype("float64"), "`trained/0` of dtype float32. Received: "),
        ("trained/0", lambda v: v.astype("int32"), "in which it is of dtype int32"),
        ("generator/cpu", lambda v: v[:-8], "`generator/cpu` as PyTorch's generators have it"),
        ("generator/cpu", lambda v: v.astype("float32"), "`generator/cpu` as PyTorch's gen"),
    ],
)
def test_values_that_no_run_has(name, change, words, state, tmp_path):
    about, values = read_state(state)
    write_state(tmp_path, about, {**values, name: change(values[name])})
    assert words in refused(tmp_path)


@only_eager
def test_one_bit_of_a_value(state, tmp_path):
    content = bytearray((state / FILE_NAME).read_bytes())
    content[-5] ^= 1
    (tmp_path / FILE_NAME).write_bytes(content)
    assert "(damaged: its checksum is that of other content)" in refused(tmp_path)


@only_eager
def test_a_state_of_before_there_were_checksums(state, tmp_path):
    about, values = read_state(state)
    del about["has_checksum"]
    save_file(values, tmp_path / FILE_NAME, metadata={"keras_mpt": json.dumps(about)})
    with pytest.raises(runs.Interrupted):
        runs.fit(runs.make_model(), tmp_path, 1)


@only_eager
def test_an_epoch_to_begin_at(state):
    with pytest.raises(ValueError) as raised:
        runs.fit(runs.make_model(), state, 1, initial_epoch=2)
    assert str(raised.value) == (
        "`initial_epoch` should be left out where a run is resumed: it goes on in epoch 0. "
        "Received: initial_epoch=2"
    )


@only_eager
def test_fit_on_other_epochs_than_the_mix_has(tmp_path):
    assert refused(tmp_path, steps_per_epoch=2) == (
        "`fit` should read `mix`, whose epochs have 5 batches, with `steps_per_epoch` left out. "
        "Received: epochs of 2"
    )


@only_eager
def test_fit_on_other_data(tmp_path):
    """Another mix of the same length; the first step is not done."""
    model = runs.make_model()
    before = [ops.convert_to_numpy(v) for v in model.variables]
    resume = ResumeTraining(tmp_path, runs.make_mix())
    with pytest.raises(ValueError) as raised:
        model.fit(runs.make_mix(), callbacks=[resume], verbose=0)
    assert str(raised.value) == "`fit` should read `mix`. Received: other data"
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)


@only_eager
def test_batches_in_an_order_that_keras_draws(tmp_path):
    assert refused(tmp_path, shuffle=True) == (
        "`shuffle` should be left out or False: a `TaskMix` shuffles its rows itself, by its seed. "
        "Received: shuffle=True"
    )


@only_eager
def test_a_model_that_is_not_compiled(tmp_path):
    model = runs.make_model()
    model.compiled = False
    assert "compile()" in refused(tmp_path, model)


@only_eager
@pytest.mark.parametrize("save_freq", ["epochs", 0, -1, 1.5, True, None])
def test_when_to_save(save_freq, tmp_path):
    with pytest.raises(ValueError) as raised:
        ResumeTraining(tmp_path, runs.make_mix(), save_freq)
    assert str(raised.value) == (
        f"`save_freq` should be 'epoch' or a positive integer. Received: save_freq={save_freq!r}"
    )


@only_eager
def test_where_to_save(tmp_path):
    (tmp_path / "file").write_text("")
    for directory in (f"{tmp_path}/a\0", tmp_path / "file" / "run", tmp_path / ("a" * 300)):
        with pytest.raises(ValueError, match="`directory` should be a directory. Received: .*, "):
            ResumeTraining(directory, runs.make_mix())
    for directory in ("", str(tmp_path / "file"), None):
        with pytest.raises(ValueError) as raised:
            ResumeTraining(directory, runs.make_mix())
        assert str(raised.value) == (
            f"`directory` should be a directory. Received: directory={directory!r}"
        )


@only_eager
def test_a_mix_that_is_none(tmp_path):
    with pytest.raises(ValueError) as raised:
        ResumeTraining(tmp_path, np.zeros(3))
    assert str(raised.value) == (
        "`mix` should be the TaskMix that `fit` reads: other data cannot be read from the middle "
        "of an epoch. Received: mix of type ndarray"
    )
