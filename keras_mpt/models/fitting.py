"""`fit`, `evaluate` and `predict` on checked data, with a report per task."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from keras_mpt.data.streams import is_stream, map_batches
from keras_mpt.models.inputs import Inputs, to_numpy
from keras_mpt.models.task_report import TaskReport


class Fitting(keras.Model):
    """A `keras.Model` whose data pass `Inputs` first; the base of every prompt-tuned model."""

    inputs_checked: Inputs
    _task_report: TaskReport | None = None

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        sample_weight: Any = None,
        validation_data: Any = None,
        **kwargs: Any,
    ) -> Any:
        """`keras.Model.fit`, after checking the data and turning text into token ids.

        Args:
            x: dict of arrays: the backbone's inputs, each (N, S) integer, and `task_ids` (N,)
                integer or names. With a preprocessor, `{"text": [...], "task_ids": [...]}`. Or a
                stream of such batches: `tf.data.Dataset`, `keras.utils.PyDataset`, PyTorch
                `DataLoader`, Grain dataset or generator.
            y: array of targets (N, …), where `x` is no stream. Defaults to `None`.
            sample_weight: float array (N,) or (N, S). Defaults to `None`.
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a stream. Defaults to `None`.
            **kwargs: the other arguments of `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`. Beside the loss and the metrics of all rows, it holds those
            of each task under its name, such as `topic_loss`; NaN for a task that had no rows.

        Raises:
            ValueError: wrong data. Arrays are checked before the first step; a stream's batch is
                checked before the step that it is for.
        """
        with self._plain_errors() as errors:
            x, y, sample_weight = self._prepared(x, y, sample_weight, errors)
            if isinstance(validation_data, (tuple, list)):
                given = keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
                validation_data = self._prepared(given[0], given[1], given[2], errors)
            elif validation_data is not None:
                validation_data, _, _ = self._prepared(validation_data, None, None, errors)
            return super().fit(
                x, y, sample_weight=sample_weight, validation_data=validation_data, **kwargs
            )

    def evaluate(
        self, x: Any = None, y: Any = None, *, sample_weight: Any = None, **kwargs: Any
    ) -> Any:
        """`keras.Model.evaluate`, on data as `fit` takes them.

        Args:
            x: as in `fit`.
            y: as in `fit`. Defaults to `None`.
            sample_weight: as in `fit`. Defaults to `None`.
            **kwargs: the other arguments of `keras.Model.evaluate`.

        Returns:
            What `keras.Model.evaluate` returns; with `return_dict=True` each task's loss and
            metrics stand under its name.
        """
        with self._plain_errors() as errors:
            if not kwargs.get("_use_cached_eval_dataset"):  # `fit` prepared its validation data.
                x, y, sample_weight = self._prepared(x, y, sample_weight, errors)
            return super().evaluate(x, y, sample_weight=sample_weight, **kwargs)

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """`keras.Model.predict`, on data as `fit` takes them.

        Args:
            x: as in `fit`.
            **kwargs: the other arguments of `keras.Model.predict`.

        Returns:
            The model's outputs as NumPy arrays.
        """
        with self._plain_errors() as errors:
            x, _, _ = self._prepared(x, None, None, errors)
            return super().predict(x, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kw: Any) -> Any:
        """`keras.Model.train_on_batch`, on arrays as `fit` takes them."""
        return super().train_on_batch(*self._prepared(x, y, sample_weight, []), **kw)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kw: Any) -> Any:
        """`keras.Model.test_on_batch`, on arrays as `fit` takes them."""
        return super().test_on_batch(*self._prepared(x, y, sample_weight, []), **kw)

    def predict_on_batch(self, x: Any) -> Any:
        """`keras.Model.predict_on_batch`, on arrays as `fit` takes them."""
        x, _, _ = self._prepared(x, None, None, [])
        return super().predict_on_batch(x)

    def check_targets(self, x: Any, y: Any) -> None:
        """Refuses targets that cannot be right; a class with something to check overrides it."""

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.compile`; each task gets its own copy of the loss and the metrics."""
        super().compile(*args, **kwargs)
        self._task_report = None
        if self.inputs_checked.has_tasks:
            config: Any = self.inputs_checked.config
            self._task_report = TaskReport(config.names, self._compile_config.config)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[Any]:
        """All metrics, those of single tasks last."""
        report = self._task_report
        return super().metrics + ([] if report is None else report.metrics)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Updates the metrics of all rows and of each task."""
        if self._task_report is not None:
            self._task_report.update(x["task_ids"], y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _prepared(
        self, x: Any, y: Any, sample_weight: Any, errors: list[str]
    ) -> tuple[Any, Any, Any]:
        """Data checked and tokenized: at once for arrays, batch by batch for a stream."""
        inputs = self.inputs_checked

        def prepare(*data: Any) -> tuple[Any, Any, Any]:
            x, y, sample_weight = inputs.tokenize(*data)
            x = to_numpy(inputs.prepare(x))
            if y is not None:
                self.check_targets(x, y)
            return x, y, sample_weight

        def prepare_tf(*data: Any) -> tuple[Any, Any, Any]:
            x, y, sample_weight = inputs.tokenize(*data)
            return inputs.prepare_tf(x, errors), y, sample_weight

        if is_stream(x):
            return map_batches(x, prepare, prepare_tf), y, sample_weight
        return prepare(x, y, sample_weight)

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[list[str]]:
        """Turns an error that was raised inside `tf.data` back into the plain one."""
        errors: list[str] = []
        try:
            yield errors
        except Exception as error:
            if errors and str(error) != errors[0]:
                raise ValueError(errors[0]) from None
            raise
