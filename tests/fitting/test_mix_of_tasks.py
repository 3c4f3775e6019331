"""A mix of some of a model's tasks, in any order: its rows are trained as those tasks' rows."""

import re

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.marks import only_torch, slow_on_tensorflow
from tests.models.classifiers import randomized

NAMES, CLASSES = ["a", "b", "c"], [2, 3, 4]


def made(names=NAMES):
    """A classifier of three tasks of two, three and four classes."""
    keras.utils.set_random_seed(0)
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=2, num_tasks=3, task_names=names
    )
    model = keras_mpt.models.PromptTunedTextClassifier(tiny.backbone("plain"), config, CLASSES)
    model.compile(keras.optimizers.SGD(0.5), jit_compile=keras.backend.backend() == "jax")
    return randomized(model)


def data(name, rows=3):
    """A task's inputs and labels, the last class among them."""
    k = [*NAMES, "new"].index(name)
    x = tiny.inputs(tiny.backbone("plain"), rows, seed=k)
    return x, np.array([*CLASSES, 2][k] - 1 - np.arange(rows) % 2)


def mix_of(*names, **kwargs):
    """A mix of tasks, of two rows of each in a batch, unless `batch_size` is given."""
    kwargs = {"batch_size": 2 * len(names), "steps": 2, "seed": 3, **kwargs}
    return keras_mpt.TaskMix({name: data(name) for name in names}, **kwargs)


def values(model):
    """The trained variables' values."""
    return [ops.convert_to_numpy(v) for v in model.trainable_variables]


@pytest.fixture(scope="module")
def compiled():
    """A model, compiled once for all tests, and the values that it starts from."""
    model = made()
    return model, values(model)


@pytest.fixture
def model(compiled):
    """The model at its start."""
    for variable, value in zip(compiled[0].trainable_variables, compiled[1], strict=True):
        variable.assign(value)
    return compiled[0]


@pytest.mark.parametrize(
    "names",
    [
        ["c", "a"],
        *(pytest.param(names, marks=only_torch) for names in (["c", "a", "b"], ["b"], NAMES)),
    ],
)
def test_rows_count_for_the_task_of_their_mix_s_name(compiled, model, names):
    start = compiled[1]
    batches = [mix_of(*names)[i] for i in range(2)]
    for x, y in batches:  # By hand, by name: no place in a mix is asked.
        by_name = {**x, "task_ids": np.array([names[k] for k in x["task_ids"]])}
        model.train_on_batch(by_name, y)
    expected = values(model)
    for variable, value in zip(model.trainable_variables, start, strict=True):
        variable.assign(value)
    mix = mix_of(*names)
    history = model.fit(mix, validation_data=mix_of(*names), verbose=0).history
    for now, then in zip(values(model), expected, strict=True):
        np.testing.assert_allclose(now, then, rtol=0, atol=1e-6)
    for name in NAMES:
        assert np.isfinite(history.get(f"{name}_loss", [np.nan])).all() == (name in names)


@only_torch
def test_predict_and_evaluate_too(model):
    x, y = mix_of("c", "a")[0]
    x = {**x, "task_ids": np.array(["c", "a"])[x["task_ids"]]}
    expected = model.predict(x, verbose=0)
    found = model.predict(mix_of("c", "a", steps=1), verbose=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    expected = model.evaluate(x, y, verbose=0)[0]
    found = model.evaluate(mix_of("c", "a", steps=1), verbose=0)[0]
    assert found == pytest.approx(expected, abs=1e-6)


@slow_on_tensorflow
def test_a_task_that_was_added_is_trained_alone():
    model = made()
    model.add_task("new", from_="b", num_classes=2)
    before = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    both = keras_mpt.stack_tasks({name: data(name) for name in ["new", "a"]})
    mix = mix_of("new", batch_size=3)
    history = model.fit(mix, validation_data=both, verbose=0).history
    assert np.isfinite(history["new_loss"]).all() and np.isfinite(history["val_a_loss"]).all()
    after = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    moved = {path: np.abs(after[path] - before[path]) for path in after}
    factors = [m for path, m in moved.items() if "prefix_task" in path]
    assert len(factors) == 2
    assert all(m[3].max() > 1e-4 and m[:3].max() == 0 for m in factors)
    (kernel,) = (m for path, m in moved.items() if path.endswith("logits/kernel"))
    assert kernel.shape[1] == 11
    assert kernel[:, 9:].max() > 1e-4 and kernel[:, :9].max() == 0


@only_torch
def test_a_run_on_some_tasks_goes_on_where_it_stopped(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                raise KeyboardInterrupt

    whole, cut, resumed = made(), made(), made()
    whole.fit(mix_of("c", "a"), verbose=0)
    for model, more in ((cut, [Stop()]), (resumed, [])):
        mix = mix_of("c", "a")
        resume = keras_mpt.ResumeTraining(tmp_path / "run", mix, save_freq=1)
        try:
            model.fit(mix, callbacks=[resume, *more], verbose=0)
        except KeyboardInterrupt:
            assert model is cut
    for now, then in zip(values(resumed), values(whole), strict=True):
        np.testing.assert_array_equal(now, then)


@only_torch
def test_a_student_learns_of_some_tasks_teachers(tmp_path):
    config = keras_mpt.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)
    model = made()
    teachers = keras_mpt.train_teachers(
        model.backbone, {n: data(n) for n in NAMES}, tmp_path, config,
        num_classes=dict(zip(NAMES, CLASSES, strict=True)), epochs=1, verbose=0,
    )  # fmt: skip
    distillation = keras_mpt.Distillation(model, teachers)
    distillation.compile(keras.optimizers.SGD(0.0))
    named = mix_of("c", "a", steps=1)[0]
    x = {**named[0], "task_ids": np.array(["c", "a"])[named[0]["task_ids"]]}
    expected = distillation.fit(x, named[1], verbose=0, batch_size=4, shuffle=False).history
    found = distillation.fit(mix_of("c", "a", steps=1), verbose=0).history
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    assert {"c_loss", "a_logits_kl"} < found.keys()
    assert not [name for name in found if name.startswith("b_")]
    distillation.compile(keras.optimizers.SGD(0.0), task_logs=False)
    found = distillation.fit(mix_of("c", "a", steps=1), verbose=0).history
    assert not [name for name in found if name.split("_")[0] in NAMES]


@only_torch
def test_tasks_that_the_model_does_not_have():
    words = "`x` should mix tasks that the model has, {}. Received: x with tasks {}"
    mix = keras_mpt.TaskMix({"a": data("a"), "irony": data("b")}, batch_size=4)
    with pytest.raises(ValueError, match=f"^{re.escape(words.format(NAMES, ['a', 'irony']))}$"):
        made().fit(mix, verbose=0)
    unnamed = made(names=None)
    names = unnamed.config.names
    with pytest.raises(ValueError, match=f"^{re.escape(words.format(names, ['a', 'b']))}$"):
        unnamed.fit(mix_of("a", "b"), verbose=0)
    # Tasks without names are those of a mix in its order, all of them.
    assert np.isfinite(unnamed.fit(mix_of(*NAMES), verbose=0).history["task_2_loss"]).all()
    one = keras_mpt.TaskMix({"task_1": data("b")}, batch_size=3)
    assert np.isfinite(unnamed.fit(one, verbose=0).history["task_1_loss"]).all()
