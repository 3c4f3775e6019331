"""Bad input gets the same words at every entrance, on every backend, and trains nothing."""

import functools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import ops

import keras_mpt
from tests import tiny

NAMES, ROWS, LENGTH = ["tone", "topic"], 4, 6
INPUTS = "['token_ids', 'padding_mask', 'task_ids']"


@pytest.fixture(scope="module")
def model():
    """A classifier with two tasks, of two and three classes; the prompt takes 3 of 32 positions."""
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type="SEQ_CLS", num_virtual_tokens=3, num_tasks=2, task_names=NAMES
    )
    model = keras_mpt.prompt_tune(tiny.backbone("plain"), config, num_classes=[2, 3])
    # TensorFlow would compile anew for each shape of bad input.
    model.compile(keras.optimizers.SGD(0.5), jit_compile=keras.backend.backend() == "jax")
    return model


@functools.cache
def tokens():
    """Inputs of the backbone, which need not be built for each batch."""
    return tiny.inputs(tiny.backbone("plain"), ROWS, LENGTH)


def good():
    """A batch as it should be."""
    x = {name: value.copy() for name, value in tokens().items()}
    return {**x, "task_ids": np.array([0, 1, 0, 1])}, np.array([1, 2, 0, 0])


def changed(name, value):
    """A function that gives an input another value."""
    return lambda x, y: ({**x, name: value}, y)


def without(*names):
    """A function that takes inputs out."""
    return lambda x, y: ({k: v for k, v in x.items() if k not in names}, y)


def length(tokens):
    """A function that makes all rows so long."""
    return lambda x, y: (
        {k: np.ones((ROWS, tokens), "int32") if v.ndim == 2 else v for k, v in x.items()},
        y,
    )


def left_padded(x, y):
    """Padding in front."""
    return {**x, "padding_mask": x["padding_mask"][:, ::-1].copy()}, y


def labels(*values):
    """A function that gives other labels."""
    return lambda x, y: (x, np.array(values))


def text(x, y):
    """Text for a model without a preprocessor."""
    return {"text": np.array(["a", "b", "c", "d"]), "task_ids": x["task_ids"]}, y


NO_IDS = "`task_ids` should be given: one of this model's 2 tasks per row. Received: task_ids=None"
NOT_INTEGERS = "`task_ids` should be integers. Received: task_ids of dtype "
OUT_OF_RANGE = "`task_ids` should lie in [0, 2): this model has 2 tasks. Received: task_ids with "
CASES = {
    "no ids": (without("task_ids"), NO_IDS),
    "None": (changed("task_ids", None), NO_IDS),
    "float": (
        changed("task_ids", np.array([0.0, 1.0, 0.5, 1.0], "float32")),
        NOT_INTEGERS + "float32: [0.0, 1.0, 0.5, 1.0]",
    ),
    "bool": (
        changed("task_ids", np.array([True, False, True, False])),
        NOT_INTEGERS + "bool: [True, False, True, False]",
    ),
    "negative": (changed("task_ids", np.array([0, -1, -2, 1])), OUT_OF_RANGE + "[-2, -1]"),
    "too large": (changed("task_ids", np.array([0, 2, 1, 9])), OUT_OF_RANGE + "[2, 9]"),
    "too few": (
        changed("task_ids", np.array([0, 1, 1])),
        "`task_ids` should have one id per row: 4 of them. Received: 3 task_ids",
    ),
    "rank 2": (
        changed("task_ids", np.array([[0], [1], [0], [1]])),
        "`task_ids` should be one id, or have shape (batch_size,). Received: task_ids of shape "
        "(4, 1)",
    ),
    "unknown name": (
        changed("task_ids", np.array(["tone", "topic", "tonne", "tone"])),
        "`task_ids` should name a task: one of ['tone', 'topic']. Received: task_ids with "
        "['tonne']",
    ),
    "ids beyond the vocabulary": (
        lambda x, y: ({**x, "token_ids": np.full_like(x["token_ids"], 50)}, y),
        "`token_ids` should have token ids in [0, 50). Received: token_ids with [50]",
    ),
    "negative ids": (
        lambda x, y: ({**x, "token_ids": -np.ones_like(x["token_ids"])}, y),
        "`token_ids` should have token ids in [0, 50). Received: token_ids with [-1]",
    ),
    "mask of other values": (
        lambda x, y: ({**x, "padding_mask": x["padding_mask"] * 3 - 1}, y),
        "`padding_mask` should be 1 (or True) at tokens and 0 at padding. Received: padding_mask "
        "with [-1, 2]",
    ),
    "mask of another length": (
        changed("padding_mask", np.ones((ROWS, LENGTH - 1), "int32")),
        "`padding_mask` should have the shape of `token_ids`, (4, 6). Received: padding_mask of "
        "shape (4, 5)",
    ),
    "mask of another rank": (
        changed("padding_mask", np.ones((ROWS,), "int32")),
        "`padding_mask` should have the shape of `token_ids`, (4, 6). Received: padding_mask of "
        "shape (4,)",
    ),
    "ids of rank 1": (
        changed("token_ids", np.ones((ROWS,), "int32")),
        "`token_ids` should have shape (batch_size, sequence_length). Received: token_ids of shape "
        "(4,)",
    ),
    "missing input": (
        without("padding_mask"),
        f"`x` should have the inputs {INPUTS}. Received: x without ['padding_mask'] and with "
        "unknown []",
    ),
    "mistyped input": (
        lambda x, y: ({k.replace("ddi", "dddi"): v for k, v in x.items()}, y),
        f"`x` should have the inputs {INPUTS}. Received: x without ['padding_mask'] and with "
        "unknown ['paddding_mask']",
    ),
    "too long": (
        length(30),
        "`token_ids` should have at most 29 tokens: the backbone has 32 positions and the prompt "
        "takes 3. Received: token_ids of shape (4, 30)",
    ),
    "left padding": (
        left_padded,
        "`padding_mask` should be 1 at each row's first token: the prompt stands behind it, so "
        "rows should be padded on the right. Received: padding_mask with 2 rows that start with "
        "padding",
    ),
    "text": (
        text,
        "`preprocessor` should be given to the model for it to take text. Received: "
        "preprocessor=None",
    ),
}  # fmt: skip
LABEL_CASES = {
    "label of another task": (
        labels(1, 2, 2, 3),
        "`y` should hold labels in [0, 2), the classes of task 'tone'. Received: label 2 in row 2, "
        "and 2 wrong labels in all",
    ),
    "negative label": (
        labels(1, -1, 0, 0),
        "`y` should hold labels in [0, 3), the classes of task 'topic'. Received: label -1 in row "
        "1, and 1 wrong labels in all",
    ),
    "too few labels": (
        labels(1, 0, 0),
        "`y` should have one label per row: 4 of them. Received: y of shape (3,)",
    ),
}


class Batches(keras.utils.PyDataset):
    """Batches in a list."""

    def __init__(self, batches, **kwargs):
        super().__init__(**kwargs)
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


# `tf.data` wants all batches of one shape, so a bad one comes alone where `good` is not given.
STREAMS = {
    "tf.data": lambda batch, *good: functools.reduce(
        lambda a, b: a.concatenate(b), map(tf.data.Dataset.from_tensors, (batch, *good))
    ),
    "PyDataset": lambda *batches: Batches(batches, workers=0),
    "PyDataset workers": lambda *batches: Batches(batches, workers=2),
    "DataLoader": lambda *batches: torch.utils.data.DataLoader(batches, batch_size=None),
    "generator": lambda *batches: (batch for batch in batches),
}


def streamed(method, kind):
    """A method fed with a bad batch and then a good one."""
    more = () if kind == "tf.data" else (good(),)
    options = {"shuffle": False} if method == "fit" else {}
    return lambda model, x, y: getattr(model, method)(
        STREAMS[kind]((x, y), *more), verbose=0, **options
    )


ENTRANCES = {
    "call": lambda model, x, y: model(x),
    "fit": lambda model, x, y: model.fit(x, y, verbose=0),
    "evaluate": lambda model, x, y: model.evaluate(x, y, verbose=0),
    "predict": lambda model, x, y: model.predict(x, verbose=0),
    "train_on_batch": lambda model, x, y: model.train_on_batch(x, y),
    **{f"fit {kind}": streamed("fit", kind) for kind in STREAMS if kind != "PyDataset workers"},
}
MORE_ENTRANCES = {
    "test_on_batch": lambda model, x, y: model.test_on_batch(x, y),
    "predict_on_batch": lambda model, x, y: model.predict_on_batch(x),
    "validation": lambda model, x, y: model.fit(*good(), validation_data=(x, y), verbose=0),
    "fit PyDataset workers": streamed("fit", "PyDataset workers"),
    **{f"evaluate {kind}": streamed("evaluate", kind) for kind in STREAMS},
    **{f"predict {kind}": streamed("predict", kind) for kind in STREAMS},
}


def values(variables):
    """The variables' values."""
    return [ops.convert_to_numpy(v) for v in variables]


def assert_refused(model, entrance, x, y, words):
    """The entrance raises these very words, and every variable holds what it held."""
    before = values(model.variables)
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        entrance(model, x, y)
    for now, then in zip(values(model.variables), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_one_error_everywhere_and_nothing_is_trained(model, case, entrance):
    change, words = CASES[case]
    assert_refused(model, ENTRANCES[entrance], *change(*good()), words)


@pytest.mark.parametrize("case", ["None", "too large"])
@pytest.mark.parametrize("entrance", MORE_ENTRANCES)
def test_the_other_entrances(model, case, entrance):
    change, words = CASES[case]
    assert_refused(model, MORE_ENTRANCES[entrance], *change(*good()), words)


@pytest.mark.parametrize("case", LABEL_CASES)
@pytest.mark.parametrize("entrance", [n for n in ENTRANCES if n not in ("call", "predict")])
def test_labels_that_a_task_does_not_have(model, case, entrance):
    change, words = LABEL_CASES[case]
    assert_refused(model, ENTRANCES[entrance], *change(*good()), words)


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset", "generator"])
def test_predict_leaves_labels_out(model, kind):
    """A test set's labels are often unknown, and written as -1."""
    x, y = good()
    found = model.predict(STREAMS[kind]((x, np.full_like(y, -1))), verbose=0)
    np.testing.assert_array_equal(found, model.predict(x, verbose=0))


@pytest.mark.parametrize("kind", STREAMS)
def test_a_bad_batch_later_on_leaves_what_was_trained_before_it(model, kind):
    x, y = good()
    model.train_on_batch(x, y)  # Makes the optimizer's variables, which are put back too.
    state = [*model.trainable_variables, *model.optimizer.variables]
    start = values(state)
    bad = ({**x, "task_ids": np.array([0, 1, 2, 0])}, y)
    for _ in range(2):  # The first two: Keras looks at them before it trains.
        model.train_on_batch(x, y)
    expected = values(model.trainable_variables)
    for variable, value in zip(state, start, strict=True):
        variable.assign(value)
    with pytest.raises(ValueError, match=f"^{re.escape(OUT_OF_RANGE)}"):
        model.fit(STREAMS[kind]((x, y), (x, y), bad), shuffle=False, verbose=0)
    # Not the optimizer's count of steps, which TensorFlow adds to before it asks for the batch.
    for now, then in zip(values(model.trainable_variables), expected, strict=True):
        np.testing.assert_allclose(now, then, rtol=0, atol=1e-6)
    assert any((a != b).any() for a, b in zip(start, expected, strict=False))


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="PyTorch runs eagerly: it sees every wrong id"
)
@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_in_a_compiled_graph_a_wrong_id_gives_nan_and_no_other_task_s_prompt(model, dtype):
    x, _ = good()
    expected = ops.convert_to_numpy(model(x))
    ids = np.array([0, 1, 200 if dtype == "uint8" else -1, 2], dtype)
    inputs = {name: ops.convert_to_tensor(v) for name, v in {**x, "task_ids": ids}.items()}
    if keras.backend.backend() == "tensorflow":
        found = tf.function(lambda inputs: model(inputs))(inputs)
    else:
        import jax

        found, _ = jax.jit(model.stateless_call)(
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            inputs,
        )
    np.testing.assert_allclose(found[:2], expected[:2], rtol=0, atol=1e-6)
    assert np.isnan(found[2:]).all()
