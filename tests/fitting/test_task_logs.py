"""What callbacks see of single tasks: directions, no columns without rows, or nothing at all."""

import contextlib
import io

import keras
import numpy as np
import pytest

import keras_mpt
from tests import tiny
from tests.marks import only_torch
from tests.models.classifiers import NAMES, config


def made(**kwargs):
    """A classifier of tasks "a" and "b", of two and three classes."""
    keras.utils.set_random_seed(0)
    model = keras_mpt.models.PromptTunedTextClassifier(tiny.backbone("plain"), config(), [2, 3])
    model.compile(keras.optimizers.SGD(0.1), jit_compile=keras.backend.backend() == "jax", **kwargs)
    return model


def data(*names):
    """A row for each name."""
    x = tiny.inputs(tiny.backbone("plain"), len(names))
    return {**x, "task_ids": np.array(names)}, np.arange(len(names)) % 2


class Seen(keras.callbacks.Callback):
    """The names and values of what a callback of the user's sees."""

    def __init__(self):
        super().__init__()
        self.batches, self.tests, self.epochs = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_test_batch_end(self, batch, logs=None):
        self.tests.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


LOGS = ["loss", "accuracy", *(f"{n}_{m}" for n in NAMES for m in ("loss", "accuracy"))]


@pytest.mark.parametrize(
    ("monitor", "better"),
    [
        ("val_b_accuracy", "up"),
        pytest.param("a_loss", "down", marks=only_torch),
        pytest.param("accuracy", "up", marks=only_torch),
    ],
)
def test_a_task_s_log_is_monitored_without_a_mode(monitor, better):
    model, (x, y) = made(), data("a", "b", "a", "b")
    stop = keras.callbacks.EarlyStopping(monitor, patience=3)
    monitors = [stop, keras.callbacks.ReduceLROnPlateau(monitor)]
    model.fit(x, y, validation_data=(x, y), callbacks=monitors, verbose=0)
    for callback in monitors:
        assert callback.monitor_op(1.0, 0.5) == (better == "up")
        assert callback.monitor_op(0.5, 1.0) == (better == "down")


@only_torch
def test_the_best_of_a_task_is_kept(tmp_path):
    model, (x, y) = made(), data("a", "b", "a", "b")
    path = tmp_path / "best.keras"
    best = keras.callbacks.ModelCheckpoint(path, "val_b_accuracy", save_best_only=True)
    model.fit(x, y, validation_data=(x, y), callbacks=[best], verbose=0)
    assert path.exists()


@only_torch
def test_directions_are_those_of_the_metrics():
    classes = keras.metrics
    metrics = [
        classes.SparseCategoricalAccuracy(name="sca"),
        classes.SparseCategoricalCrossentropy(from_logits=True, name="sce"),
        classes.SparseTopKCategoricalAccuracy(k=2, name="top"),
    ]
    model, (x, y) = made(metrics=metrics, weighted_metrics=["accuracy"]), data(*NAMES)
    model.fit(x, y, verbose=0)
    for name, is_more in {"sca": 1, "sce": 0, "top": 1, "accuracy": 1, "loss": 0}.items():
        for task in ("a_", ""):
            stop = keras.callbacks.EarlyStopping(task + name)
            stop.set_model(model)
            stop._set_monitor_op()
            assert stop.monitor_op(1.0, 0.0) == is_more, task + name


def test_no_columns_for_tasks_without_rows():
    model, (x, y), seen = made(), data("a", "a", "b", "a"), Seen()
    history = model.fit(
        x, y, batch_size=2, shuffle=False, validation_data=data("b", "b"), callbacks=[seen],
        verbose=0,
    ).history  # fmt: skip
    of_a = ["loss", "accuracy", "a_loss", "a_accuracy"]
    assert [set(logs) for logs in seen.batches] == [set(of_a), set(LOGS)]
    of_b = ["loss", "accuracy", "b_loss", "b_accuracy"]
    assert set(seen.tests[0]) == set(of_b)
    assert set(history) == {*LOGS, *(f"val_{name}" for name in of_b)} == set(seen.epochs[0])
    assert np.isfinite(list(history.values())).all()


@only_torch
def test_what_is_written_beside_the_bar():
    model, out = made(), io.StringIO()
    with contextlib.redirect_stdout(out):
        model.fit(*data("a", "a"), verbose=2)
        model.evaluate(*data("a", "a"), verbose=2)
    assert "a_loss" in out.getvalue() and "b_" not in out.getvalue()
    assert "nan" not in out.getvalue()


class InTurn(keras.utils.PyDataset):
    """One batch in each epoch, of other tasks each time."""

    def __init__(self, *epochs):
        super().__init__()
        self.epochs, self.at = epochs, -1

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return data(*self.epochs[max(self.at, 0)])

    def on_epoch_begin(self):
        self.at += 1


@only_torch
def test_a_column_has_an_entry_per_epoch():
    model, seen = made(), Seen()
    epochs = InTurn(["a", "a"], ["a", "b"], ["b", "b"])
    history = model.fit(epochs, epochs=3, callbacks=[seen], verbose=0, shuffle=False)
    assert history.epoch == [0, 1, 2]
    found = {name: np.isnan(values).tolist() for name, values in history.history.items()}
    assert found == {
        "loss": [False] * 3,
        "accuracy": [False] * 3,
        "a_loss": [False, False, True],
        "a_accuracy": [False, False, True],
        "b_loss": [True, False, False],
        "b_accuracy": [True, False, False],
    }
    assert [sorted(n for n in logs if "_" in n) for logs in seen.epochs] == [
        ["a_accuracy", "a_loss"], sorted(LOGS[2:]), ["b_accuracy", "b_loss"],
    ]  # fmt: skip


@only_torch
def test_an_evaluation_within_a_fit_is_not_its_history():
    class Evaluates(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(*data("b", "b"), verbose=0)

    history = made().fit(*data("a", "a"), callbacks=[Evaluates()], epochs=2, verbose=0)
    assert len(history.history["a_loss"]) == 2 and "b_loss" not in history.history


@only_torch
def test_a_loss_that_is_no_number_is_not_hidden():
    def broken(y, y_pred):
        return keras.ops.sum(y_pred * float("nan"), axis=-1)

    model = made(loss=broken, metrics=[])
    history = model.fit(*data("a", "b"), verbose=0).history
    assert set(history) == {"loss", "a_loss", "b_loss"}
    assert np.isnan(list(history.values())).all()


@only_torch
def test_logs_of_tasks_can_be_left_out(tmp_path):
    model, (x, y) = made(task_logs=False), data("a", "b")
    assert set(model.fit(x, y, verbose=0).history) == {"loss", "accuracy"}
    assert set(model.evaluate(x, y, verbose=0, return_dict=True)) == {"loss", "accuracy"}
    model.add_task("c", from_="a")
    assert set(model.fit(x, y, verbose=0).history) == {"loss", "accuracy"}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert set(loaded.fit(x, y, verbose=0).history) == {"loss", "accuracy"}
    loaded.compile()
    assert "c_loss" not in loaded.fit(x, y, verbose=0).history
    assert "a_loss" in loaded.fit(x, y, verbose=0).history
    with pytest.raises(ValueError, match="^`task_logs` should be True or False. Received: task_"):
        loaded.compile(task_logs="no")
