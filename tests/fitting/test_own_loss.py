"""A user's own loss of rows with several targets, of which some do not count."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.fitting.kinds import log_softmax
from tests.marks import only_eager, slow_on_jax

LENGTH = 6
TOKENS, ROWS = ("CAUSAL_LM", "TOKEN_CLS"), 4


def each(y, y_pred):
    """A loss per target."""
    return keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)


def of_rows(y, y_pred):
    """A loss per row: padding is in it."""
    return ops.mean(each(y, y_pred), axis=-1)


def of_rows_with_an_axis(y, y_pred):
    """A loss per row, (B, 1)."""
    return ops.mean(each(y, y_pred), axis=-1, keepdims=True)


def of_all(y, y_pred):
    """A loss of the whole batch."""
    return ops.mean(each(y, y_pred))


def as_object(function):
    """The same as a loss object."""

    class Own(keras.losses.Loss):
        """A loss of a user's own."""

        def call(self, y_true, y_pred):
            """The function."""
            return function(y_true, y_pred)

    return Own()


WRAPS = pytest.mark.parametrize(
    "wrap",
    [lambda function: function, pytest.param(as_object, marks=only_eager)],
    ids=["function", "object"],
)


def make(task_type, **tasks):
    """A model of two tasks, its inputs and targets, the latter half of each row not counting."""
    more = {"num_tasks": 2, "task_names": ["tone", "topic"], **tasks}
    config = keras_mpt.MultitaskPromptTuningConfig(
        task_type=task_type, num_virtual_tokens=2, **more
    )
    backbone = tiny.backbone("llama" if task_type == "CAUSAL_LM" else "plain")
    given = {} if task_type == "CAUSAL_LM" else {"num_classes": 3}
    model = keras_mpt.prompt_tune(tiny.with_large_weights(backbone), config, **given)
    x = tiny.inputs(model.backbone, rows=ROWS, length=LENGTH)
    x["task_ids"] = np.array([0, 1, 1, 0])
    y = np.random.default_rng(0).integers(0, 3, (ROWS, LENGTH))
    return model, x, y


def halves(task_type, y):
    """Targets and weights by which the latter half does not count."""
    if task_type == "TOKEN_CLS":
        y = y.copy()
        y[:, LENGTH // 2 :] = -100
        return y, None
    weight = np.zeros(y.shape, "float32")
    weight[:, : LENGTH // 2] = 1.0
    return y, weight


@pytest.mark.parametrize("task_type", TOKENS)
@WRAPS
@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (of_rows, "each row"),
        (of_all, "the whole batch"),
        pytest.param(of_rows_with_an_axis, "each row", marks=only_eager),
    ],
)
def test_a_loss_that_has_added_up_what_does_not_count_is_refused(task_type, wrap, loss, words):
    model, x, y = make(task_type)
    y, weight = halves(task_type, y)
    model.compile("sgd", wrap(loss), weighted_metrics=None)
    before = [v.numpy() for v in model.trainable_variables]
    message = f"`loss` should give a value for each of .* Received: a function .* for {words}"
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, sample_weight=weight, verbose=0)
    for value, variable in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(value, variable.numpy())


@only_eager
@WRAPS
@pytest.mark.parametrize("loss", [of_rows, of_all])
def test_without_tasks_it_is_refused_as_well(loss, wrap):
    config = keras_mpt.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    model = keras_mpt.prompt_tune(tiny.backbone("llama"), config)
    x = tiny.inputs(model.backbone, rows=ROWS, length=LENGTH)
    y, weight = halves("CAUSAL_LM", np.ones((ROWS, LENGTH), "int32"))
    model.compile("sgd", wrap(loss), weighted_metrics=None)
    with pytest.raises(ValueError, match="`loss` should give a value for each of"):
        model.train_on_batch(x, y, weight)


@only_eager
@pytest.mark.parametrize("task_type", TOKENS)
@pytest.mark.parametrize("metric", [of_rows, of_all])
def test_so_is_a_metric_that_weights_count_in(task_type, metric):
    model, x, y = make(task_type)
    y, weight = halves(task_type, y)
    model.compile("sgd", weighted_metrics=[metric])
    with pytest.raises(ValueError, match="`weighted_metrics` should give a value for each of"):
        model.evaluate(x, y, sample_weight=weight, verbose=0)


@pytest.mark.parametrize("task_type", TOKENS)
def test_of_tasks_with_losses_of_their_own_it_is_refused_as_well(task_type):
    model, x, y = make(task_type)
    y, weight = halves(task_type, y)
    model.compile("sgd", {"tone": of_rows, "topic": "auto"}, weighted_metrics=None)
    with pytest.raises(ValueError, match="`loss` should give as many values for all tasks. Rec"):
        model.fit(x, y, sample_weight=weight, verbose=0)


def with_an_axis(y, y_pred):
    """A loss per target, (B, S, 1)."""
    return each(y, y_pred)[..., None]


@slow_on_jax
@pytest.mark.parametrize("task_type", TOKENS)
@pytest.mark.parametrize(
    "loss",
    [each, *(pytest.param(f, marks=only_eager) for f in (as_object(each), with_an_axis))],
    ids=["function", "object", "one more axis"],
)
def test_a_loss_per_target_is_weighed(task_type, loss):
    model, x, y = make(task_type)
    y, weight = halves(task_type, y)
    model.compile("sgd", loss, weighted_metrics=None)
    logits = np.asarray(ops.convert_to_numpy(model(x)), "float64")
    expected = np.array(
        [[-log_softmax(row[t])[label] for t, label in enumerate(of_row)]
         for row, of_row in zip(logits[:, : LENGTH // 2], y[:, : LENGTH // 2], strict=True)]
    )  # fmt: skip
    found = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
    # Keras's mean over all targets, whatever they weigh.
    np.testing.assert_allclose(found["loss"], expected.sum() / y.size, rtol=1e-5)
    tone = expected[x["task_ids"] == 0].sum() / (2 * LENGTH)
    np.testing.assert_allclose(found["tone_loss"], tone, rtol=1e-5)


def test_where_all_targets_count_the_same_any_loss_is_taken():
    model, x, y = make("CAUSAL_LM")
    found = []
    for loss in (each, of_rows, of_all):
        model.compile("sgd", loss, weighted_metrics=None)
        found.append(model.evaluate(x, y, verbose=0, return_dict=True)["loss"])
    np.testing.assert_allclose(found, found[0], rtol=1e-6)
