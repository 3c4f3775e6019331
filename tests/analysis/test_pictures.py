"""Pictures, by the data that they draw."""

import sys

import keras
import numpy as np
import pytest
from matplotlib.text import Text

import keras_mpt
from keras_mpt.analysis import (
    nearest_tokens,
    plot_curves,
    plot_forgetting,
    plot_nearest_tokens,
    plot_similarity,
    task_similarity,
)
from keras_mpt.analysis.figure import number, spread
from tests import tiny
from tests.analysis import models
from tests.marks import only_eager

NAN = float("nan")


@pytest.fixture(scope="module")
def model():
    """A model that no test changes."""
    return models.randomized(models.make())


@pytest.fixture(scope="module")
def history():
    """Of a `fit` of three epochs with validation data; one task has no rows."""
    model = models.make()
    x = tiny.inputs(model.backbone, rows=8)
    x["task_ids"] = np.array([0, 1] * 4)
    y = np.array([0, 1, 2, 0] * 2)
    return model.fit(x, y, epochs=3, validation_data=(x, y), verbose=0)


def drawn(axes):
    """The curves' x and y by their names."""
    return {line.get_label(): line.get_data() for line in axes.lines}


def texts_outside(axes):
    """The names beside the curves."""
    return [text.get_text() for text in axes.texts]


def text_box(text):
    """Where a text stands, without the line that an annotation has."""
    return Text.get_window_extent(text)


def assert_nothing_is_cut_off(figure):
    """All that is drawn lies within the figure."""
    figure.draw_without_rendering()  # Lays it out.
    box, size = figure.get_tightbbox(), figure.get_size_inches()
    assert (box.min >= 0).all() and (box.max <= size).all(), (box, size)


@only_eager
def test_curves_of_a_fit(history, tmp_path):
    figure = plot_curves(history, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "accuracy"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch", "epoch"]
    for axes, measure in zip(figure.axes, ["loss", "accuracy"], strict=True):
        found = drawn(axes)
        # A task that never had rows has no curve.
        names = [measure, f"tone_{measure}", f"topic_{measure}"]
        assert set(found) == {*names, *(f"val_{name}" for name in names)}
        for name, (x, y) in found.items():
            np.testing.assert_array_equal(x, [1, 2, 3])
            np.testing.assert_array_equal(y, history.history[name], err_msg=name)
        assert sorted(texts_outside(axes)) == ["all tasks", "tone", "topic"]
        for line in axes.lines:
            dashed = line.get_label().startswith("val_")
            assert line.get_linestyle() == ("--" if dashed else "-")
        assert axes.get_title(loc="left").endswith("per task, dashed: validation")
    assert_nothing_is_cut_off(figure)


def test_curves_of_one_task_have_one_color(history):
    for axes in plot_curves(history).axes:
        colors = {}
        for line in axes.lines:
            name = line.get_label().removeprefix("val_")
            assert colors.setdefault(name, line.get_color()) == line.get_color()
        assert len(set(colors.values())) == len(colors)


def test_curves_of_a_dict_of_logs_and_of_later_epochs():
    logs = {"loss": [3, 2, 1, 0.5], "a_loss": [NAN, 2, NAN, 1], "val_loss": [5, 4]}
    logs["val_a_loss"] = [6, NAN]
    (axes,) = plot_curves(logs).axes
    found = drawn(axes)
    np.testing.assert_array_equal(found["a_loss"], [[1, 2, 3, 4], logs["a_loss"]])
    np.testing.assert_array_equal(found["val_a_loss"], [[2, 4], [6, NAN]])
    history = keras.callbacks.History()
    history.history, history.epoch = {"loss": [1, 2], "a_loss": [3, 4]}, [7, 8]
    (axes,) = plot_curves(history).axes
    np.testing.assert_array_equal(drawn(axes)["a_loss"][0], [8, 9])


@pytest.mark.parametrize(
    ("freq", "epochs", "at"),
    [(None, 4, [2, 4]), (None, 7, [3, 6]), (3, 5, [3]), (4, 11, [4, 8]), ([1, 6], 7, [1, 6])],
)
def test_validation_stands_at_the_epochs_that_it_was_made_in(freq, epochs, at):
    logs = {"loss": [1.0] * epochs, "a_loss": [1.0] * epochs, "val_a_loss": [2.0] * len(at)}
    (axes,) = plot_curves(logs, validation_freq=freq).axes
    np.testing.assert_array_equal(drawn(axes)["val_a_loss"][0], at)


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_epochs_are_whole_numbers(epochs):
    figure = plot_curves({"loss": [1.0] * epochs, "a_loss": [2.0] * epochs})
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    ticks = [tick for tick in figure.axes[0].get_xticks() if low <= tick <= high]
    assert ticks and all(tick == int(tick) for tick in ticks)


def test_similarities(model, tmp_path):
    for of in ("factors", "prompt"):
        figure = plot_similarity(model, tmp_path / "similarity.svg", of)
        (axes,) = figure.axes
        names, expected = task_similarity(model, of)
        np.testing.assert_array_equal(axes.images[0].get_array(), expected)
        assert axes.images[0].get_clim() == (-1, 1)
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            assert [label.get_text() for label in labels] == names
        texts = [text.get_text() for text in axes.texts]
        assert texts == [f"{v:.2f}".replace("-", "−") for v in expected.ravel()]
        assert_nothing_is_cut_off(figure)
    assert (tmp_path / "similarity.svg").read_text().startswith("<?xml")


def test_similarities_at_the_start_are_no_numbers():
    (axes,) = plot_similarity(models.make()).axes
    assert axes.images[0].get_array().mask.all()
    assert [text.get_text() for text in axes.texts] == ["–"] * 9


def test_similarities_near_one_have_more_digits():
    model = models.make()
    state = model.prompt.get_peft_state_dict()
    rows = 1 + 0.02 * np.random.default_rng(0).normal(size=state["prefix_task_rows"].shape)
    model.prompt.set_peft_state_dict({**state, "prefix_task_rows": rows.astype("float32")})
    expected = task_similarity(model, of="prompt")[1]
    assert 0.9990 < expected.min() < 0.99995
    (axes,) = plot_similarity(model, of="prompt").axes
    texts = [float(text.get_text()) for text in axes.texts]
    np.testing.assert_allclose(texts, expected.ravel(), atol=5e-4)
    assert min(texts) < 1


@pytest.mark.parametrize("task", [None, "topic", 1])
def test_nearest_tokens(model, task, tmp_path):
    figure = plot_nearest_tokens(model, task, 3, path=tmp_path / "tokens.png")
    (axes,) = figure.axes
    expected = nearest_tokens(model, task, 3)
    similarities = [[similarity for _, similarity in row] for row in expected]
    np.testing.assert_array_equal(axes.images[0].get_array(), similarities)
    texts = [text.get_text() for text in axes.texts]
    assert texts == [f"{token}  {s:.2f}".replace("-", "−") for row in expected for token, s in row]
    whose = "the prompt" if task is None else "the prompt of topic"
    assert axes.get_title(loc="left") == f"Nearest tokens to {whose} (cosine)"
    assert (tmp_path / "tokens.png").exists()
    assert_nothing_is_cut_off(figure)


def test_tokens_are_no_formulas():
    figure = plot_nearest_tokens(models.single(), k=tiny.VOCABULARY)
    texts = [text for text in figure.axes[0].texts if text.get_text().startswith("$the$")]
    assert len(texts) == 4 and not any(text.get_parse_math() for text in texts)


def test_forgetting(tmp_path):
    earlier = [{"a": 0.5, "b": 0.9, "c": 0.5}, {"a": 0.75, "b": 0.8}]
    now = {"a": 0.25, "b": 1.0, "c": NAN, "new": 0.5}
    figure = plot_forgetting(earlier, now, path=tmp_path / "forgetting.png")
    (axes,) = figure.axes
    best, current = (points.get_offsets() for points in axes.collections[1:])
    np.testing.assert_allclose(best, [[0.75, 0], [0.9, 1], [0.5, 2]])
    np.testing.assert_allclose(current.filled(NAN), [[0.25, 0], [1.0, 1], [NAN, NAN]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert [text.get_text() for text in axes.texts] == ["+0.500", "−0.100", "–", "forgetting"]
    assert (tmp_path / "forgetting.png").exists()
    (axes,) = plot_forgetting(earlier[0], {"a": 0.25}, mode="min").axes
    assert [text.get_text() for text in axes.texts] == ["−0.250", "forgetting"]
    assert_nothing_is_cut_off(figure)


@only_eager
@pytest.mark.parametrize("tasks", [2, 8, 32])
def test_names_of_many_tasks_are_neither_cut_off_nor_over_each_other(tasks):
    names = [f"a task of some length {k}" for k in range(tasks)]
    logs = {f"{name}_loss": [2.0, 1 + 0.001 * k] for k, name in enumerate(names)}
    figure = plot_curves({"loss": [2.0, 1.0], **logs})
    assert_nothing_is_cut_off(figure)
    (axes,) = figure.axes
    boxes = sorted((text_box(text) for text in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == tasks + 1
    for below, above in zip(boxes, boxes[1:], strict=False):
        assert above.y0 - below.y0 > 0.95 * (below.y1 - below.y0)
    model = models.randomized(models.make(num_tasks=tasks, task_names=names))
    assert_nothing_is_cut_off(plot_similarity(model))
    assert_nothing_is_cut_off(plot_forgetting(dict.fromkeys(names, 1.0), dict.fromkeys(names, 0.5)))


def test_spread_in_small_cases():
    for wanted, expected in (
        ([], []),
        ([0.2], [0.2]),
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.4, 0.6], [0.5, 0.4, 0.6]),
        ([0.0, 0.0, 0.0], [0.0, 0.1, 0.2]),
        ([1.0, 0.98, 0.1], [1.0, 0.9, 0.1]),
        ([0.5] * 11, np.arange(11) / 10),
        ([0.5] * 12, np.arange(12) / 10),  # No room: over the upper end.
    ):
        np.testing.assert_allclose(spread(wanted, 0.1, 0, 1), expected, atol=1e-12)


def test_numbers_as_text():
    assert [number(v, ".2f") for v in (0.256, -0.5, -0.001, NAN)] == ["0.26", "−0.50", "0.00", "–"]
    assert [number(v, "+.1f") for v in (0.25, -0.5, 0)] == ["+0.2", "−0.5", "+0.0"]


def test_a_notebook_shows_it(history):
    figure = plot_curves(history)
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


def test_pyplot_is_left_alone(model, history):
    sys.modules.pop("matplotlib.pyplot", None)
    plot_curves(history)
    plot_similarity(model)
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("plot_curves", lambda m: plot_curves({"loss": [1.0], "a_loss": [1.0]})),
        ("plot_similarity", plot_similarity),
        ("plot_nearest_tokens", plot_nearest_tokens),
        ("plot_forgetting", lambda m: plot_forgetting({"a": 1.0}, {"a": 1.0})),
    ],
)
def test_without_matplotlib_it_says_what_to_install(model, monkeypatch, name, call):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError) as raised:
        call(model)
    assert str(raised.value) == f"`{name}` needs Matplotlib: `pip install keras-mpt[plot]`."


def test_bad_input():
    single = keras_mpt.PromptTuningConfig(num_virtual_tokens=2)
    plain = keras_mpt.prompt_tune(tiny.backbone("plain"), single)
    for call, error in (
        (
            lambda: plot_curves({"loss": [1.0], "accuracy": [0.5]}),
            "`history` should have logs of tasks, such as 'topic_loss'. `fit` gives them for up to "
            "32 tasks. Received: history with ['loss', 'accuracy']",
        ),
        (lambda: plot_curves([1.0]), "`history` should be what `fit` returned, or its dict of "
         "logs. Received: a list"),
        (
            lambda: plot_curves({"a_loss": [1.0] * 5, "loss": [1.0] * 5, "val_a_loss": [1.0]}),
            "`validation_freq` should be given, as it was to `fit`: several fit, or none. Received:"
            " validation_freq=None with 1 validations in 5 epochs",
        ),
        (
            lambda: plot_curves({"a_loss": [1.0] * 5, "loss": [1.0] * 5, "val_a_loss": [1.0]},
                                validation_freq=2),
            "`validation_freq` should fit the 1 validations in 5 epochs. Received: "
            "validation_freq=2",
        ),
        (lambda: plot_similarity(plain), "`model` should have tasks, those of a "
         "MultitaskPromptTuningConfig. Received: a model with a PromptTuningConfig"),
        (lambda: plot_nearest_tokens(plain, k=51), "`k` should be at most the vocabulary's 50 "
         "tokens. Received: k=51"),
        (lambda: plot_forgetting({}, {}), "`earlier` should have scores of tasks that `now` has "
         "too. Received: earlier with [] and now with []"),
    ):  # fmt: skip
        with pytest.raises(ValueError) as raised:
            call()
        assert str(raised.value) == error


def test_tensorboard_gets_each_task_s_logs_as_scalars(tmp_path):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    model = models.make()
    x = {**tiny.inputs(model.backbone, rows=4), "task_ids": [0, 1, 1, 0]}
    y = np.array([0, 1, 2, 0])
    board = keras.callbacks.TensorBoard(tmp_path, write_graph=False)
    logs = model.fit(x, y, epochs=2, validation_data=(x, y), verbose=0, callbacks=[board]).history
    for folder, prefix in (("train", ""), ("validation", "val_")):
        events = EventAccumulator(str(tmp_path / folder))
        events.Reload()
        for task in models.NAMES:
            for measure in ("loss", "accuracy"):
                written = events.Tensors(f"epoch_{task}_{measure}")
                values = [float(tensor_util.make_ndarray(e.tensor_proto)) for e in written]
                expected = logs[f"{prefix}{task}_{measure}"]
                np.testing.assert_allclose(values, expected, rtol=1e-6)
