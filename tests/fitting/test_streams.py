"""Every kind of stream trains, evaluates and predicts as the same batches in NumPy arrays do."""

import itertools

import grain
import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

import keras_mpt
from keras_mpt.fitting.streams import is_stream
from tests import tiny

ROWS, BATCH, EPOCHS = 8, 4, 2
NAMES = ["tone", "topic"]
KINDS = ("tf.data", "PyDataset", "PyDataset workers", "DataLoader", "MapDataset", "IterDataset",
         "generator")  # fmt: skip


class Batches(keras.utils.PyDataset):
    """Batches in a list, which it cycles through where `length` is `None`."""

    def __init__(self, batches, length, **kwargs):
        super().__init__(**kwargs)
        self.batches, self.length, self.calls = batches, length, []

    @property
    def num_batches(self):
        return self.length

    def __getitem__(self, index):
        return self.batches[index % len(self.batches)]

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")


class Cycle(torch.utils.data.IterableDataset):
    """A list over and over."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return itertools.cycle(self.items)


def part(data, rows):
    """`(x, …)` cut to some rows; `rows` is a slice or an index."""
    return tuple({k: v[rows] for k, v in d.items()} if isinstance(d, dict) else d[rows]
                 for d in data)  # fmt: skip


def stream(kind, data, endless=False):
    """`(x,)`, `(x, y)` or `(x, y, sample_weight)` as a stream of batches, in order."""
    batches = [part(data, slice(i, i + BATCH)) for i in range(0, ROWS, BATCH)]
    rows = [part(data, i) for i in range(ROWS)]
    match kind:
        case "tf.data":
            dataset = tf.data.Dataset.from_tensor_slices(data).batch(BATCH)
            return dataset.repeat() if endless else dataset
        case "PyDataset":
            return Batches(batches, None if endless else len(batches), workers=0)
        case "PyDataset workers":
            return Batches(batches, None if endless else len(batches), workers=2)
        case "DataLoader":
            source = Cycle(rows) if endless else rows
            return torch.utils.data.DataLoader(source, BATCH, num_workers=0)
        case "MapDataset" | "IterDataset":
            dataset = grain.MapDataset.source(rows)
            dataset = (dataset.repeat() if endless else dataset).batch(BATCH)
            return dataset if kind == "MapDataset" else dataset.to_iter_dataset()
        case "generator":
            return (batch for batch in (itertools.cycle(batches) if endless else batches))


@pytest.fixture(scope="module")
def compiled():
    """A model, compiled once for all tests, its inputs, targets and weights for rows."""
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=2, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=[2, 3])
    # TensorFlow would compile anew for each kind of stream.
    jit_compile = keras.backend.backend() == "jax"
    optimizer = keras.optimizers.SGD(0.5)
    model.compile(optimizer, weighted_metrics=["accuracy"], jit_compile=jit_compile)
    rng = np.random.default_rng(0)
    start = [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
    x = {**tiny.inputs(model.backbone, ROWS), "task_ids": np.array([0, 1, 1, 0, 1, 1, 0, 0])}
    y, sample_weight = np.array([1, 2, 0, 0, 1, 2, 1, 0]), rng.uniform(0.5, 2, ROWS)
    return model, start, (x, y, sample_weight.astype("float32"))


@pytest.fixture
def model(compiled):
    """The model at its start."""
    for variable, value in zip(compiled[0].trainable_variables, compiled[1], strict=True):
        variable.assign(value)
    return compiled[0]


@pytest.fixture
def data(compiled):
    """`(x, y, sample_weight)`."""
    return compiled[2]


def trained(model):
    """The trained values."""
    return [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]


def fit_arrays(model, data, start, **kwargs):
    """History and weights of a fit on NumPy arrays, after which the model is back at its start."""
    x, y, *rest = data
    history = model.fit(
        x, y, sample_weight=rest[0] if rest else None, batch_size=BATCH, epochs=EPOCHS,
        shuffle=False, verbose=0, **kwargs,
    )  # fmt: skip
    weights = trained(model)
    for variable, value in zip(model.trainable_variables, start, strict=True):
        variable.assign(value)
    return history.history, weights


def assert_same(history, model, expected):
    """The same losses and metrics in every epoch, and the same weights."""
    assert history.keys() == expected[0].keys()
    for name, values in expected[0].items():
        np.testing.assert_allclose(history[name], values, rtol=0, atol=1e-6, err_msg=name)
    for ours, theirs in zip(trained(model), expected[1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def on_arrays(compiled):
    """What the same batches give in NumPy arrays: two fits, without and with weights, the rest."""
    model, start, data = compiled
    x, y, sample_weight = data
    for variable, value in zip(model.trainable_variables, start, strict=True):
        variable.assign(value)
    return {
        "fit": fit_arrays(model, data[:2], start),
        "fit with weights": fit_arrays(model, data, start),
        "evaluate": model.evaluate(
            x, y, sample_weight=sample_weight, batch_size=BATCH, return_dict=True, verbose=0
        ),
        "predict": model.predict(x, batch_size=BATCH, verbose=0),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_fit_as_on_arrays(on_arrays, model, data, kind):
    expected = on_arrays["fit"]
    assert abs(expected[0]["loss"][0] - expected[0]["loss"][1]) > 0.01
    # A generator is spent after an epoch, in Keras as here.
    spent = kind == "generator"
    history = model.fit(
        stream(kind, data[:2], endless=spent), epochs=EPOCHS, shuffle=False, verbose=0,
        steps_per_epoch=ROWS // BATCH if spent else None,
    )  # fmt: skip
    assert_same(history.history, model, expected)
    # Where a stream has a length, Keras shows it.
    has_length = kind in ("tf.data", "PyDataset", "PyDataset workers", "DataLoader", "generator")
    assert history.params["steps"] == (ROWS // BATCH if has_length else None)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_with_steps_per_epoch_of_an_endless_stream_with_weights(on_arrays, model, data, kind):
    history = model.fit(
        stream(kind, data, endless=True), epochs=EPOCHS, steps_per_epoch=ROWS // BATCH,
        shuffle=False, verbose=0,
    )  # fmt: skip
    assert_same(history.history, model, on_arrays["fit with weights"])


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_as_on_arrays(on_arrays, model, data, kind):
    found = model.evaluate(stream(kind, data), return_dict=True, verbose=0)
    assert found == pytest.approx(on_arrays["evaluate"], rel=0, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", ["x with names", "x y weights"])
def test_predict_as_on_arrays(on_arrays, model, data, kind, given):
    if given == "x with names":
        data = ({**data[0], "task_ids": np.array(NAMES)[data[0]["task_ids"]]},)
    found = model.predict(stream(kind, data), verbose=0)
    np.testing.assert_allclose(found, on_arrays["predict"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["tuple", "tuple with weights", "list", "tf.data", "PyDataset"])
def test_validation_data(model, data, kind):
    kinds = {"tuple": data[:2], "tuple with weights": data, "list": list(data[:2])}
    given = kinds.get(kind) or stream(kind, data)
    history = model.fit(
        *data[:2], batch_size=BATCH, validation_data=given, validation_batch_size=BATCH, verbose=0
    )
    weights = None if kind in ("tuple", "list") else data[2]
    expected = model.evaluate(
        *data[:2], sample_weight=weights, batch_size=BATCH, return_dict=True, verbose=0
    )
    found = {k.removeprefix("val_"): v[0] for k, v in history.history.items() if "val_" in k}
    assert found == pytest.approx(expected, rel=0, abs=1e-6)


@pytest.mark.parametrize("kind", ["PyDataset", "PyDataset workers"])
def test_epoch_hooks_pass_through(model, data, kind):
    """When Keras calls them is its own affair, so a plain model says when."""
    plain = keras.Sequential([keras.layers.Dense(1)])
    plain.compile("sgd", "mse")
    ones = np.ones((ROWS, 1))
    plain.fit(ones, ones, verbose=0)
    calls = []
    for tuned, given in ((plain, (ones, ones)), (model, data)):
        dataset = stream(kind, given)
        tuned.fit(dataset, epochs=2, verbose=0)
        tuned.evaluate(dataset, verbose=0)
        calls.append(dataset.calls)
    assert calls[0].count("begin") == 3
    assert calls[1] == calls[0]


def test_py_dataset_with_len_alone(on_arrays, model, data):
    class WithLen(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return part(data, slice(0, BATCH))

    found = model.predict(WithLen(), verbose=0)
    np.testing.assert_allclose(found, on_arrays["predict"][:BATCH], rtol=0, atol=1e-6)


def test_py_dataset_without_any_length_is_refused_as_keras_refuses_it(model, data):
    class WithoutLength(keras.utils.PyDataset):
        def __getitem__(self, index):
            return part(data, slice(0, BATCH))

    with pytest.raises(NotImplementedError, match="You need to implement the `num_batches`"):
        model.fit(WithoutLength(), steps_per_epoch=1, verbose=0)


def test_targets_beside_a_stream_are_refused_as_keras_refuses_them(model, data):
    with pytest.raises(ValueError, match="When providing `x` as a PyDataset, `y` should not"):
        model.fit(stream("PyDataset", data), data[1], verbose=0)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_a_stream(data, kind):
    assert is_stream(stream(kind, data))


@pytest.mark.parametrize(
    "value",
    [None, {}, [1], (1,), "text", np.ones(2), tf.ones(2), torch.ones(2), range(2)],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_stream(value):
    assert not is_stream(value)
