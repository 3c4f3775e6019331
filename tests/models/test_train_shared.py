"""P frozen and thawed in a built model, and tasks that the training of a new one leaves alone."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_mpt
from tests import tiny
from tests.marks import IS_EAGER, only_torch
from tests.models.classifiers import NAMES, make, predict, randomized

Y = np.array([1, 2, 0, 1])


def rows(model, task_ids=(0, 1, 1, 0)):
    return {**tiny.inputs(model.backbone), "task_ids": np.array(task_ids)}


def values(model):
    """The trained variables by name."""
    found = {**model.prompt.named_weights(), **model.head.weights()}
    return {name: ops.convert_to_numpy(v).copy() for name, v in found.items()}


def moved(model, before):
    """The names of those that differ."""
    return {n for n, v in values(model).items() if not np.array_equal(v, before[n])}


def set_it(model, where, value):
    {"model": model, "prompt": model.prompt, "config": model.config}[where].train_shared = value


@pytest.fixture(scope="module")
def classifier():
    """A model of two tasks that was trained with two speeds."""
    model = make()
    model.compile(keras_mpt.two_speed_optimizer())
    model.fit(rows(model), Y[[0, 1, 2, 0]], verbose=0)
    return model


@pytest.mark.parametrize(
    "where", ["model", *(pytest.param(w, marks=only_torch) for w in ("prompt", "config"))]
)
def test_p_is_frozen_and_thawed_from_the_next_fit_on(classifier, where):
    model, x, y = classifier, rows(classifier), np.array([1, 2, 0, 0])
    start = values(model)
    set_it(model, where, False)
    model.fit(x, y, verbose=0)
    assert moved(model, start) == set(start) - {"prompt_embeddings"}
    assert model.train_shared is model.config.train_shared is model.prompt.train_shared is False
    numbers = model.parameter_count()
    frozen = values(model)
    set_it(model, where, True)
    model.fit(x, y, verbose=0)
    assert moved(model, frozen) == set(start)
    assert model.parameter_count() == numbers + 3 * tiny.WIDTH
    assert model.config.train_shared is True


def test_a_new_task_leaves_the_others_as_they_are(tmp_path):
    """Under weight decay, which moves what has no gradient, and with rows of all tasks."""
    model = make()
    model.compile(keras.optimizers.AdamW(0.01, weight_decay=0.1))
    new = model.add_task("c", num_classes=3, train_shared=False)
    before, logits = values(model), predict(model, *NAMES)
    assert model.config.frozen_tasks == NAMES
    model.fit(rows(model, [0, 1, new, new]), Y, verbose=0)

    def assert_kept(model):
        after = values(model)
        np.testing.assert_array_equal(after["prompt_embeddings"], before["prompt_embeddings"])
        for name in ("prefix_task_cols", "prefix_task_rows"):
            np.testing.assert_array_equal(after[name][:2], before[name][:2])
            assert not np.array_equal(after[name][2], before[name][2])
        for name in model.head.weights():
            np.testing.assert_array_equal(after[name][..., :5], before[name][..., :5])
            assert not np.array_equal(after[name][..., 5:], before[name][..., 5:])
        for name, wanted in predict(model, *NAMES).items():
            np.testing.assert_array_equal(wanted, logits[name])

    assert_kept(model)
    # L·R + R·d of its factors, and its head.
    assert model.parameter_count() == 3 * 2 + 2 * tiny.WIDTH + (tiny.WIDTH + 1) * 3
    if not IS_EAGER:  # What follows trains once more.
        return
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    loaded.fit(rows(loaded, [0, 1, new, new]), Y, verbose=0)
    assert_kept(loaded)
    assert moved(loaded, values(model))


@only_torch
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1),
        lambda: keras.optimizers.Ftrl(0.1),
        lambda: keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.7),
        lambda: keras_mpt.two_speed_optimizer(factors=keras.optimizers.Lion(0.1, weight_decay=0.1)),
    ],
)
def test_whatever_the_optimizer(optimizer):
    model = make()
    model.add_task("c", from_="a", train_shared=False)
    model.compile(optimizer())
    before, logits = values(model), predict(model, *NAMES)
    model.fit(rows(model, [0, 2, 2, 2]), np.array([1, 1, 0, 1]), epochs=3, verbose=0)
    for name, wanted in predict(model, *NAMES).items():
        np.testing.assert_array_equal(wanted, logits[name])
    assert not np.array_equal(values(model)["prefix_task_cols"][2], before["prefix_task_cols"][2])
    before = values(model)
    model.train_on_batch(rows(model, [0, 2, 2, 2]), np.array([1, 1, 0, 1]))
    np.testing.assert_array_equal(
        values(model)["prefix_task_rows"][:2], before["prefix_task_rows"][:2]
    )
    assert moved(model, before)


def bert_classifier(num_classes, cls=keras_mpt.models.PromptTunedTextClassifier):
    config = keras_mpt.MultitaskPromptTuningConfig(
        num_virtual_tokens=3, num_tasks=2, task_names=NAMES
    )
    return randomized(cls(tiny.backbone("roberta", dropout=0.0), config, num_classes))


@only_torch
@pytest.mark.parametrize("num_classes", [[2, 3], 3])
def test_what_tasks_share_in_the_head_is_frozen_with_them(num_classes, tmp_path):
    """RoBERTa has a trained layer below the heads; and one head may be all tasks'."""
    model = bert_classifier(num_classes)
    names = ["prompt_embeddings", *(n for n in values(model) if "dense" in n)]
    assert len(names) == 3
    names += [n for n in values(model) if "out_proj" in n and isinstance(num_classes, int)]
    model.add_task("c", from_="a", train_shared=False)
    before, logits = values(model), predict(model, *NAMES)
    model.trainable = False
    model.trainable = True
    x = {**rows(model, [0, 1, 2, 2])}
    model.fit(x, np.array([1, 1, 0, 1]), verbose=0)
    assert moved(model, before) == set(before) - set(names)
    for name, wanted in predict(model, *NAMES).items():
        np.testing.assert_array_equal(wanted, logits[name])
    # An adapter goes on so.
    model.save_adapter(tmp_path)
    loaded = keras_mpt.load_adapter(model.backbone, tmp_path)
    assert loaded.config.frozen_tasks == NAMES
    loaded.fit(x, np.array([1, 1, 0, 1]), verbose=0)
    for name, wanted in predict(loaded, *NAMES).items():
        np.testing.assert_array_equal(wanted, logits[name])
    # Until P is trained again.
    loaded.train_shared = True
    before = values(loaded)
    loaded.fit(x, np.array([1, 1, 0, 1]), verbose=0)
    assert moved(loaded, before) == set(before)
    assert loaded.config.frozen_tasks is None


@only_torch
def test_frozen_tasks_follow_names():
    model = make("backbone")
    model.add_task("c", train_shared=False)
    model.add_task("d")
    assert model.config.frozen_tasks == NAMES
    model.rename_task("a", "first")
    model.remove_task("b")
    assert model.config.frozen_tasks == ["first"]
    assert model.config.names == ["first", "c", "d"]
    model.add_task("e", train_shared=True)
    assert model.config.frozen_tasks is None
    assert model.train_shared is True


@only_torch
def test_a_prompt_that_is_set_keeps_its_setting_as_tasks_change():
    model = make()
    model.prompt.train_shared = False
    model.add_task("c", from_="a")
    assert model.train_shared is model.config.train_shared is False
    assert not any(v is model.prompt.prompt_embeddings for v in model.trainable_variables)


@only_torch
def test_a_distillation_follows_its_student():
    student = make()
    keras_mpt_model = keras_mpt.Distillation(student, _teachers(student))
    x, y = rows(student), np.array([1, 2, 0, 0])
    keras_mpt_model.fit(x, y, verbose=0)
    before = values(student)
    student.train_shared = False
    keras_mpt_model.fit(x, y, verbose=0)
    assert moved(student, before) == set(before) - {"prompt_embeddings"}


def _teachers(student):
    return {name: student.fold(name) for name in NAMES}


@only_torch
def test_a_frozen_p_of_an_older_file_is_found():
    """It stood last, behind the factors."""
    layer = keras_mpt.MultitaskPromptEmbedding(3, 4, 2, train_shared=False)
    layer.build()
    values = [np.random.default_rng(k).normal(size=v.shape) for k, v in enumerate(layer.weights)]
    layer.load_own_variables({"0": values[1], "1": values[2], "2": values[0]})
    for variable, wanted in zip(layer.weights, values, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(variable), wanted, rtol=1e-6)


@only_torch
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m: setattr(m, "train_shared", "no"), "`train_shared` should be True or False"),
        (lambda m: setattr(m.prompt, "train_shared", 0), "`train_shared` should be True or False"),
        (
            lambda m: m.add_task("c", from_="a", train_shared="no"),
            "`train_shared` should be True or False. Received: train_shared='no'",
        ),
        (
            lambda m: setattr(m.fold("a"), "train_shared", False),
            "`train_shared` should be left as it is in a model of one prompt",
        ),
    ],
)
def test_other_values_are_refused_and_change_nothing(act, message):
    model = make()
    before = values(model)
    with pytest.raises(ValueError, match=message):
        act(model)
    assert model.train_shared is True
    assert model.config.names == NAMES
    assert not moved(model, before)
