"""`fit`, `evaluate` and `predict` on checked data, with a report per task."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mpt.data.task_mix import TaskMix
from keras_mpt.fitting.frozen import PartlyFrozen
from keras_mpt.fitting.jax_state import keeping_variables
from keras_mpt.fitting.model_inputs import Inputs, to_numpy
from keras_mpt.fitting.streams import is_stream, map_batches
from keras_mpt.fitting.task_report import TaskReport, weight_per_target


class Fitting(PartlyFrozen):
    """A `keras.Model` whose data pass `Inputs` first; the base of every prompt-tuned model."""

    inputs_checked: Inputs
    # Whether the model gives one tensor: Keras may compute a loss of each of several.
    has_one_output: bool = True
    # Whether a row has several targets, such as one per token.
    has_targets_per_token: bool = False
    train_function: Any
    test_function: Any
    predict_function: Any
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
            y: array or list of targets (N, …), where `x` is no stream. Defaults to `None`.
            sample_weight: float array or list (N,) or (N, S). Defaults to `None`.
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a stream. Defaults to `None`.
            **kwargs: the other arguments of `keras.Model.fit`. Batches of a `TaskMix` come in its
                own order: `shuffle=True` is refused.

        Returns:
            A `keras.callbacks.History`. Beside the loss and the metrics of all rows, it holds those
            of each of up to 32 tasks under its name, such as `topic_loss`; NaN for a task that had
            no rows.

        Raises:
            ValueError: wrong data. Arrays are checked before the first step; a stream's batch is
                checked before the step that it is for.
        """
        if self.has_targets_per_token and kwargs.get("class_weight") is not None:
            raise ValueError(
                "`class_weight` should be left out: Keras takes it for one class per row. Give "
                "`sample_weight` per token, (N, S). Received: "
                f"class_weight={kwargs['class_weight']!r}"
            )
        if isinstance(x, TaskMix) and kwargs.setdefault("shuffle", False):
            raise ValueError(
                "`shuffle` should be left out or False: a `TaskMix` shuffles its rows itself, by "
                f"its seed. Received: shuffle={kwargs['shuffle']!r}"
            )
        if isinstance(x, TaskMix) and x.within_epoch:
            # Of a `fit` that broke off. Keras moves on too, but has counted the batches by then.
            x.on_epoch_end()
        with self._plain_errors() as errors:
            x, y, sample_weight = self._prepared(x, y, sample_weight, errors)
            if isinstance(validation_data, (tuple, list)):
                given = keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
                validation_data = self._prepared(given[0], given[1], given[2], errors)
            elif validation_data is not None:
                validation_data, _, _ = self._prepared(validation_data, None, None, errors)
            self._build_from(x)
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
                self._build_from(x)
            return super().evaluate(x, y, sample_weight=sample_weight, **kwargs)

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """`keras.Model.predict`, on data as `fit` takes them.

        Args:
            x: as in `fit`; targets in a stream are left out.
            **kwargs: the other arguments of `keras.Model.predict`.

        Returns:
            The model's outputs as NumPy arrays.
        """
        with self._plain_errors() as errors:
            x, _, _ = self._prepared(x, None, None, errors, with_targets=False)
            return super().predict(x, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kw: Any) -> Any:
        """`keras.Model.train_on_batch`, on arrays as `fit` takes them."""
        return super().train_on_batch(*self._prepared(x, y, sample_weight, []), **kw)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kw: Any) -> Any:
        """`keras.Model.test_on_batch`, on arrays as `fit` takes them."""
        return super().test_on_batch(*self._prepared(x, y, sample_weight, []), **kw)

    def predict_on_batch(self, x: Any) -> Any:
        """`keras.Model.predict_on_batch`, on arrays as `fit` takes them."""
        x, _, _ = self._prepared(x, None, None, [], with_targets=False)
        return super().predict_on_batch(x)

    def prepared(self, x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any, Any]:
        """Data checked and tokenized, as `fit` does it: what it would train on.

        Args:
            x: as in `fit`.
            y: as in `fit`. Defaults to `None`.
            sample_weight: as in `fit`. Defaults to `None`.

        Returns:
            `(x, y, sample_weight)`.
        """
        return self._prepared(x, y, sample_weight, [], may_lack_targets=True)

    def check_targets(self, x: Any, y: Any) -> None:
        """Refuses targets that cannot be right; a class with something to check overrides it."""

    def check_has_targets(self, y: Any) -> None:
        """Refuses data without targets where a loss is to be computed of them."""
        if y is None and self.compiled and self.loss is not None:
            raise ValueError(
                "`y` should be given: the loss is computed of it, unless `compile` was given "
                "`loss=None`. Received: y=None"
            )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.compile`; each task gets its own copy of the loss and the metrics."""
        # Keras keeps what an earlier `compile` was given where a later one gives `None`.
        self.loss = self._compile_loss = self._compile_metrics = None
        super().compile(*args, **kwargs)
        self._task_report = None
        if self.inputs_checked.has_tasks and self.has_one_output:
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

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **kw: Any
    ) -> Any:
        """The loss; a weight per row counts for each of the row's targets."""
        sample_weight = self._weight_per_target(y, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, **kw)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Updates the metrics of all rows and of each task."""
        sample_weight = self._weight_per_target(y, sample_weight)
        if self._task_report is not None:
            self._task_report.update(x["task_ids"], y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _weight_per_target(self, y: Any, sample_weight: Any) -> Any:
        if sample_weight is None or not self.has_targets_per_token or len(y.shape) != 2:
            return sample_weight
        return weight_per_target(ops.cast(sample_weight, "float32"), y)

    def make_train_function(self, force: bool = False) -> None:
        """As `keras.Model`; an error in a step leaves the model its variables.

        The optimizer's are made before: TensorFlow would trace the first batch twice to make them.
        """
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        super().make_train_function(force)
        self.train_function = keeping_variables(self, self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        """As `keras.Model`; an error in a step leaves the model its variables."""
        super().make_test_function(force)
        self.test_function = keeping_variables(self, self.test_function)

    def make_predict_function(self, force: bool = False) -> None:
        """As `keras.Model`; an error in a step leaves the model its variables."""
        super().make_predict_function(force)
        self.predict_function = keeping_variables(self, self.predict_function)

    def _prepared(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        errors: list[str],
        with_targets: bool = True,
        may_lack_targets: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Data checked and tokenized: at once for arrays, batch by batch for a stream."""
        inputs = self.inputs_checked

        def tokenize(*data: Any) -> tuple[Any, Any, Any]:
            x, y, sample_weight = inputs.tokenize(*data)
            if not with_targets:
                return x, None, None
            if not may_lack_targets:
                self.check_has_targets(y)
            return x, y, sample_weight

        def check(x: Any, y: Any = None) -> Any:
            x = inputs.prepare(x)
            if y is not None:
                self.check_targets(x, y)
            return x

        def prepare(*data: Any) -> tuple[Any, Any, Any]:
            x, y, sample_weight = tokenize(*data)
            return to_numpy(check(x, y)), y, sample_weight

        def prepare_tf(*data: Any) -> tuple[Any, Any, Any]:
            x, y, sample_weight = tokenize(*data)
            return inputs.prepare_tf(x, y, _noting(check, errors)), y, sample_weight

        if is_stream(x):
            self._check_task_names(x)
            return (
                map_batches(x, _noting(prepare, errors), _noting(prepare_tf, errors)),
                y,
                sample_weight,
            )
        return prepare(x, _as_array(y), _as_array(sample_weight))

    def _check_task_names(self, stream: Any) -> None:
        """Refuses a `TaskMix` of other tasks: its ids are numbers in its own order."""
        own, given = getattr(self.inputs_checked.config, "task_names", None), None
        if own is not None:
            given = getattr(stream, "task_names", None)
        if given is not None and given != own:
            raise ValueError(
                f"`x` should mix the model's tasks in the model's order, {own}. Received: x with "
                f"tasks {given}"
            )

    def _build_from(self, x: Any) -> None:
        """Builds the loss and the metrics, where Keras would run an epoch's hooks to get a batch.

        `TaskMix` would count that one as an epoch.
        """
        if isinstance(x, keras.utils.PyDataset) and keras.backend.backend() != "tensorflow":
            self._symbolic_build(data_batch=x[0])

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[list[str]]:
        """Turns an error that `tf.data` has wrapped in its own back into the plain one."""
        errors: list[str] = []
        try:
            yield errors
        except Exception as error:
            plain = next((text for text in errors if text in str(error)), str(error))
            if plain != str(error):
                raise ValueError(plain) from None
            raise


def takes_labels(loss: Any) -> bool:
    """Whether targets are class labels under this loss, rather than numbers."""
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
        return True
    return "sparse" in (loss if isinstance(loss, str) else getattr(loss, "__name__", ""))


def _as_array(values: Any) -> Any:
    """A list of numbers as an array. A list of arrays, one per output, stays as it is."""
    is_numbers = isinstance(values, list) and not any(hasattr(v, "shape") for v in values)
    try:
        return np.asarray(values) if is_numbers else values
    except ValueError:
        raise ValueError(
            "`y` and `sample_weight` should be arrays, or lists of equal lengths. Received: "
            f"{values!r}"
        ) from None


def _noting(function: Callable[..., Any], errors: list[str]) -> Callable[..., Any]:
    """The function, which also puts the words of its errors into `errors`."""

    def noted(*args: Any) -> Any:
        try:
            return function(*args)
        except ValueError as error:
            errors.append(str(error))
            raise

    return noted
