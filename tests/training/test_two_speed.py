"""P, the tasks' factors and the rest, each by its own rate."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from keras_mpt.training.two_speed import two_speed_optimizer
from tests import tiny
from tests.marks import IS_EAGER

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
GROUPS = {"prompt_embeddings": 0, "prefix_task_cols": 1, "prefix_task_rows": 1}
# Adam's 1 - 0.999^t is not better known than this in float32, for rates of at most 0.3.
ATOL = 3e-5
LOSS = keras.losses.SparseCategoricalCrossentropy


def make(kind="heads"):
    """A model of each kind whose variables have other paths."""
    config = keras_mpt.MultitaskPromptTuningConfig(num_virtual_tokens=3, num_tasks=2)
    backbone, models = tiny.backbone("plain"), keras_mpt.models
    match kind:
        case "heads":
            return models.PromptTunedTextClassifier(backbone, config, [2, 3])
        case "backbone":
            return models.PromptTunedBackbone(backbone, config)
        case "causal":
            return models.PromptTunedCausalLM(tiny.backbone("gpt2"), config)
        case "nested":
            model = make()
            names = tiny.inputs(backbone)
            inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
            inputs["task_ids"] = keras.Input((), dtype="int32", name="task_ids")
            return keras.Model(inputs, keras.layers.Dense(2, name="top")(model(inputs)))
        case "single prompt":
            config = keras_mpt.PromptTuningConfig(num_virtual_tokens=3)
            return models.PromptTunedTextClassifier(backbone, config, 2)
    raise ValueError(kind)


def arrays(variables):
    """The variables' values."""
    return [ops.convert_to_numpy(v) for v in variables]


def group_of(variable):
    """0 for P, 1 for factors, 2 for the rest: by the last word of the path, not by a pattern."""
    return GROUPS.get(variable.path.split("/")[-1], 2)


def adam_in_numpy(value, gradients, rates, decay=0.0):
    """Adam's steps in float64, with its two moments."""
    value, m, v = np.float64(value), 0.0, 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        gradient = np.float64(gradient)
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        value = value * (1 - rate * decay)
        step = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        value = value - step * m / (np.sqrt(v) + 1e-7)
    return value


def apply_and_compare(model, optimizer, rates, decays=(0.0, 0.0, 0.0)):
    """Three steps on given gradients, by the optimizer and in NumPy, with each group's rates."""
    variables, rng = model.trainable_variables, np.random.default_rng(0)
    steps = [[rng.normal(size=v.shape).astype("float32") for v in variables] for _ in range(3)]
    starts = arrays(variables)
    optimizer.build(variables)
    for gradients in steps:
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
    for i, variable in enumerate(variables):
        group = group_of(variable)
        gradients = [step[i] for step in steps]
        wanted = adam_in_numpy(starts[i], gradients, rates[group], decays[group])
        found = ops.convert_to_numpy(variable)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ATOL, err_msg=variable.path)


@pytest.mark.parametrize("kind", ["heads", "backbone", "causal", "nested", "single prompt"])
def test_each_group_moves_by_its_rate_wherever_the_model_stands(kind):
    model = make(kind)
    groups = [group_of(v) for v in model.trainable_variables]
    rest = {"heads": 2, "nested": 4, "single prompt": 2}.get(kind, 0)
    assert groups == [0, *([] if kind == "single prompt" else [1, 1]), *[2] * rest]
    apply_and_compare(model, two_speed_optimizer(0.1, 0.2, 0.3), [[0.1] * 3, [0.2] * 3, [0.3] * 3])


def test_the_defaults_are_adam_with_the_stated_rates():
    apply_and_compare(make(), two_speed_optimizer(), [[0.01] * 3, [0.1] * 3, [0.01] * 3])


def test_schedules_and_weight_decay_come_with_their_group():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], [0.3, 0.2, 0.1])
    decaying = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer = two_speed_optimizer(shared=decaying, factors=schedule, head=0.2)
    assert optimizer.optimizers[0] is decaying
    apply_and_compare(
        model := make(), optimizer, [[0.1] * 3, [0.3, 0.2, 0.1], [0.2] * 3], (0.5, 0, 0)
    )
    assert model.prompt.prompt_embeddings.path.endswith("prompt_embeddings")


def data(model):
    """Inputs of both tasks, and targets."""
    x = {**tiny.inputs(model.backbone), "task_ids": np.array([0, 1, 1, 0])}
    return x, np.array([1, 2, 0, 0])


def fit(model, optimizer=None, epochs=1):
    """Steps of `fit` on one batch; the trained variables after them."""
    if optimizer is not None:
        model.compile(optimizer, LOSS(from_logits=True))
    model.fit(*data(model), epochs=epochs, shuffle=False, verbose=0)
    return arrays(model.trainable_variables)


def test_a_step_of_fit_moves_each_group_by_its_rate():
    model = make()
    start = arrays(model.trainable_variables)
    gradients = [np.float64(a) - b for a, b in zip(start, fit(model, SGD(1.0)), strict=True)]
    assert all(np.abs(g).max() > 1e-5 for g in gradients)
    for rates in ((0.25, 2.0, 0.5), (0.0, 0.5, 4.0)):
        for variable, value in zip(model.trainable_variables, start, strict=True):
            variable.assign(value)
        moved = fit(model, two_speed_optimizer(*(SGD(rate) for rate in rates)))
        for variable, found, a, g in zip(
            model.trainable_variables, moved, start, gradients, strict=True
        ):
            wanted = a - rates[group_of(variable)] * g
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6, err_msg=variable.path)


@pytest.mark.parametrize("rate", [None, 0, 0.0] if IS_EAGER else [None])
def test_a_rate_of_nothing_keeps_every_bit(rate):
    model = make()
    start = arrays(model.trainable_variables)
    moved = fit(model, two_speed_optimizer(shared=rate), epochs=3)
    for variable, a, b in zip(model.trainable_variables, start, moved, strict=True):
        assert np.array_equal(a, b) == (group_of(variable) == 0), variable.path
    assert len(model.optimizer.optimizers[0].variables) == 2  # No moments: a count and a rate.


@pytest.mark.parametrize("kind", ["heads", "single prompt"] if IS_EAGER else ["heads"])
def test_a_saved_model_trains_on_as_if_it_had_not_been(kind, tmp_path):
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    model = make(kind)
    if kind == "single prompt":
        model.compile(two_speed_optimizer(0.05, schedule, 0.2), LOSS(from_logits=True))
        x, y = tiny.inputs(model.backbone), np.array([1, 1, 0, 0])
    else:
        fit(model, two_speed_optimizer(0.05, schedule, SGD(0.2, momentum=0.9)))
        x, y = data(model)
    model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, keras.optimizers.MultiOptimizer)
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    for each in (model, loaded):
        each.fit(x, y, epochs=2, shuffle=False, verbose=0)
    trained = (arrays(m.trainable_variables) for m in (model, loaded))
    for a, b in zip(*trained, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_task_that_is_added_leaves_each_group_its_rate_without_a_state():
    model = make()
    schedule = keras.optimizers.schedules.CosineDecay(0.3, 10)
    fit(model, two_speed_optimizer(0.1, schedule, SGD(0.2, momentum=0.9)), epochs=2)
    old = model.optimizer
    old.optimizers[0].learning_rate = 0.05
    model.add_task("c", num_classes=2)
    assert model.optimizer is not old
    p, factors, head = model.optimizer.optimizers
    assert float(ops.convert_to_numpy(p.learning_rate)) == np.float32(0.05)
    assert factors.get_config()["learning_rate"]["config"]["initial_learning_rate"] == 0.3
    assert (type(head).__name__, head.momentum) == ("SGD", 0.9)
    for optimizer in (p, factors, head):
        count, *others = [v for v in optimizer.variables if v.name != "learning_rate"]
        assert int(ops.convert_to_numpy(count)) == 0
        assert not any(ops.convert_to_numpy(v).any() for v in others)
    variables, rng = model.trainable_variables, np.random.default_rng(0)
    starts = arrays(variables)
    gradients = [rng.normal(size=v.shape).astype("float32") for v in variables]
    model.optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
    rates = [np.float32(0.05), 0.3]
    for variable, start, gradient in zip(variables, starts, gradients, strict=True):
        group = group_of(variable)
        wanted = start - 0.2 * np.float64(gradient)
        if group < 2:
            wanted = adam_in_numpy(start, [gradient], [rates[group]])
        found = ops.convert_to_numpy(variable)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ATOL, err_msg=variable.path)


SHOULD = (
    "`{}` should be a learning rate of at least 0, a LearningRateSchedule, an optimizer for one "
    "group of variables, or None. Received: {}={}"
)


@pytest.mark.parametrize("name", ["shared", "factors", "head"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "adam"])
def test_a_rate_that_is_none(name, value):
    with pytest.raises(ValueError) as raised:
        two_speed_optimizer(**{name: value})
    assert str(raised.value) == SHOULD.format(name, name, repr(value))


@pytest.mark.parametrize("wrap", ["MultiOptimizer", "LossScaleOptimizer"])
def test_an_optimizer_that_holds_others(wrap):
    inner = two_speed_optimizer() if wrap == "MultiOptimizer" else None
    value = inner or keras.optimizers.LossScaleOptimizer(Adam())
    with pytest.raises(ValueError) as raised:
        two_speed_optimizer(head=value)
    assert str(raised.value) == SHOULD.format("head", "head", f"a {wrap}")


def test_one_optimizer_for_two_groups():
    with pytest.raises(ValueError) as raised:
        two_speed_optimizer(shared=(both := Adam()), head=both)
    assert str(raised.value) == (
        "`shared`, `factors` and `head` should be optimizers of their own, as each has a state of "
        "its own. Received: one optimizer given twice"
    )
