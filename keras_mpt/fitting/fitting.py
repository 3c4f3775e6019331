"""`fit`, `evaluate` and `predict` on checked data, with a report per task."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mpt import _keras
from keras_mpt.data.task_mix import shuffle_of
from keras_mpt.fitting.frozen import freeze
from keras_mpt.fitting.kept import Kept, kept_through, step_that_keeps
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.preparation import Preparation
from keras_mpt.fitting.recompile import follow_trained
from keras_mpt.fitting.steps import data_are_checked, keeping_variables, on_checked_data
from keras_mpt.fitting.targets import Targets
from keras_mpt.fitting.task_report import TaskReport
from keras_mpt.types import Config, Data, TargetData, Tensor, Tensors


class Fitting(keras.Model, abc.ABC):
    """A `keras.Model` whose data are checked first, and which keeps frozen what is frozen.

    Keras hands `trainable` down to all layers: a model frozen and thawed again would train its
    backbone.

    Args:
        model_inputs: the model's inputs.
        targets: the kind of targets that it is trained towards.
        has_one_output: bool. Whether the model gives one tensor: Keras may compute a loss of each
            of several. Defaults to `True`.
        **kwargs: those of `keras.Model`.
    """

    # Keras's own, which are wrapped here.
    train_function: Any
    test_function: Any
    predict_function: Any

    def __init__(
        self,
        model_inputs: ModelInputs,
        targets: Targets,
        has_one_output: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_inputs = model_inputs
        self.targets = targets
        self.has_one_output = has_one_output
        self.kept = Kept()
        self._task_report: TaskReport | None = None

    @property
    @abc.abstractmethod
    def always_frozen(self) -> list[keras.layers.Layer]:
        """The layers that nothing trains, whatever `trainable` is set to."""

    @property
    @abc.abstractmethod
    def run_settings(self) -> Config:
        """What makes a training with this model another than one with other settings."""

    @property
    def trainable(self) -> bool:
        """Whether the prompt and the head are trained. What is frozen for good stays so."""
        return bool(super().trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.Model.trainable.fset(self, value)
        for layer in [*self.always_frozen, *self.kept.layers()]:
            freeze(layer)

    def __call__(self, inputs: Data, *args: Any, **kwargs: Any) -> Tensors:
        """Checks the inputs while they are still as the caller gave them, then calls the model."""
        if not data_are_checked(self):
            inputs = self.model_inputs.prepare(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def fit(
        self,
        x: Data = None,
        y: TargetData = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Data = None,
        shuffle: bool | None = None,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: TargetData = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
    ) -> keras.callbacks.History:
        """`keras.Model.fit`, after checking the data and turning text into token ids.

        Args:
            x: dict of arrays: the backbone's inputs, each (N, S) integer, and `task_ids` (N,)
                integer or names. With a preprocessor, `{"text": [...], "task_ids": [...]}`. Lists,
                arrays, and columns of pandas, Hugging Face's datasets and other tables will do; a
                table of these columns alone is such a dict. Or a stream of such batches:
                `tf.data.Dataset`, `keras.utils.PyDataset`, PyTorch `DataLoader`, Grain dataset or
                generator. Defaults to `None`.
            y: array, list or column of targets (N, …), where `x` is no stream. Defaults to `None`.
            batch_size: int. Rows of a step; `None` is Keras's 32. Defaults to `None`.
            epochs: int. Defaults to `1`.
            verbose: as in Keras. Defaults to `"auto"`.
            callbacks: list of `keras.callbacks.Callback`. Defaults to `None`.
            validation_split: float. As in Keras. Defaults to `0.0`.
            validation_data: `(x, y)`, `(x, y, sample_weight)` or a stream. Defaults to `None`.
            shuffle: bool. `None` is Keras's `True`; batches of a `TaskMix` come in its own order,
                and `True` is refused. Defaults to `None`.
            class_weight: dict of class to weight, for one class per row. Defaults to `None`.
            sample_weight: float array or list (N,) or (N, S). Defaults to `None`.
            initial_epoch: int. As in Keras. Defaults to `0`.
            steps_per_epoch: int. As in Keras. Defaults to `None`.
            validation_steps: int. As in Keras. Defaults to `None`.
            validation_batch_size: int. As in Keras. Defaults to `None`.
            validation_freq: int. As in Keras. Defaults to `1`.

        Returns:
            A `keras.callbacks.History`. Beside the loss and the metrics of all rows, it holds those
            of each of up to 32 tasks under its name, such as `topic_loss`; NaN for a task that had
            no rows.

        Raises:
            ValueError: wrong data. Arrays are checked before the first step; a stream's batch is
                checked before the step that it is for.
        """
        if self.targets.several_per_row and class_weight is not None:
            raise ValueError(
                "`class_weight` should be left out: Keras takes it for one class per row. Give "
                f"`sample_weight` per token, (N, S). Received: class_weight={class_weight!r}"
            )
        shuffle = shuffle_of(x, shuffle)
        follow_trained(self)
        prepare = self._preparation()
        with prepare.plain_errors(), kept_through(self.kept.parts()):
            x, y, sample_weight = prepare(x, y, sample_weight)
            if isinstance(validation_data, (tuple, list)):
                given = keras.utils.unpack_x_y_sample_weight(tuple(validation_data))
                validation_data = prepare(*given)
            elif validation_data is not None:
                validation_data, _, _ = prepare(validation_data)
            self._build_from(x)
            return super().fit(
                x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                class_weight=class_weight,
                sample_weight=sample_weight,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_batch_size=validation_batch_size,
                validation_freq=validation_freq,
            )

    def evaluate(
        self,
        x: Data = None,
        y: TargetData = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: TargetData = None,
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> float | list[float] | dict[str, float]:
        """`keras.Model.evaluate`, on data as `fit` takes them.

        Args:
            x: as in `fit`. Defaults to `None`.
            y: as in `fit`. Defaults to `None`.
            batch_size: as in `fit`. Defaults to `None`.
            verbose: as in Keras. Defaults to `"auto"`.
            sample_weight: as in `fit`. Defaults to `None`.
            steps: int. As in Keras. Defaults to `None`.
            callbacks: as in `fit`. Defaults to `None`.
            return_dict: bool. Whether to give a dict by name: each task's loss and metrics stand
                under its name. Defaults to `False`.
            **kwargs: what Keras's own `fit` gives.

        Returns:
            What `keras.Model.evaluate` returns.
        """
        prepare = self._preparation()
        with prepare.plain_errors():
            if not _keras.is_validation_of_fit(kwargs):
                x, y, sample_weight = prepare(x, y, sample_weight)
                self._build_from(x)
            return super().evaluate(
                x,
                y,
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                steps=steps,
                callbacks=callbacks,
                return_dict=return_dict,
                **kwargs,
            )

    def predict(
        self,
        x: Data,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
    ) -> Tensors:
        """`keras.Model.predict`, on data as `fit` takes them.

        Args:
            x: as in `fit`; targets in a stream are left out.
            batch_size: as in `fit`. Defaults to `None`.
            verbose: as in Keras. Defaults to `"auto"`.
            steps: int. As in Keras. Defaults to `None`.
            callbacks: as in `fit`. Defaults to `None`.

        Returns:
            The model's outputs as NumPy arrays.
        """
        prepare = self._preparation(with_targets=False)
        with prepare.plain_errors():
            x, _, _ = prepare(x)
            return super().predict(x, batch_size, verbose, steps, callbacks)

    def train_on_batch(
        self,
        x: Data,
        y: TargetData = None,
        sample_weight: TargetData = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """`keras.Model.train_on_batch`, on arrays as `fit` takes them."""
        follow_trained(self)
        x, y, sample_weight = self._preparation()(x, y, sample_weight)
        return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)

    def test_on_batch(
        self,
        x: Data,
        y: TargetData = None,
        sample_weight: TargetData = None,
        return_dict: bool = False,
    ) -> Any:
        """`keras.Model.test_on_batch`, on arrays as `fit` takes them."""
        x, y, sample_weight = self._preparation()(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, return_dict)

    def predict_on_batch(self, x: Data) -> Any:
        """`keras.Model.predict_on_batch`, on arrays as `fit` takes them."""
        return super().predict_on_batch(self._preparation(with_targets=False)(x)[0])

    def prepared(
        self,
        x: Data,
        y: TargetData = None,
        sample_weight: TargetData = None,
        needs_targets: bool = False,
    ) -> tuple[Data, TargetData, TargetData]:
        """Data checked and tokenized, as `fit` does it: what it would train on.

        Args:
            x: as in `fit`.
            y: as in `fit`. Defaults to `None`.
            sample_weight: as in `fit`. Defaults to `None`.
            needs_targets: bool. Whether data are refused that `fit` would find no targets in.
                Defaults to `False`.

        Returns:
            `(x, y, sample_weight)`.
        """
        needs_targets = needs_targets and self._needs_targets
        prepare = Preparation(self.model_inputs, self._check_targets, needs_targets=needs_targets)
        return prepare(x, y, sample_weight)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.compile`; each task gets its own copy of the loss and the metrics."""
        _keras.forget_compile_arguments(self)
        super().compile(*args, **kwargs)
        self._task_report = None
        if self.model_inputs.has_tasks and self.has_one_output:
            self._task_report = TaskReport(
                self.model_inputs.task_names, _keras.compile_arguments(self)
            )

    def compile_arguments(self) -> Config:
        """What `compile` was given, to compile another model with."""
        return _keras.compile_arguments(self)

    def compile_from_config(self, config: Config) -> None:
        """Compiles a loaded model as it was when it was saved."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.Metric]:
        """All metrics, those of single tasks last."""
        report = self._task_report
        return super().metrics + ([] if report is None else report.metrics)

    def compute_loss(
        self,
        x: dict[str, Tensor] | None = None,
        y: Tensor = None,
        y_pred: Tensors = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The loss over the targets that count."""
        y, sample_weight = self.targets.counted(self.model_inputs, x or {}, y, sample_weight)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(
        self, x: dict[str, Tensor], y: Tensor, y_pred: Tensors, sample_weight: Tensor = None
    ) -> dict[str, Any]:
        """Updates the metrics of all rows and of each task."""
        y, sample_weight = self.targets.counted(self.model_inputs, x, y, sample_weight)
        if self._task_report is not None:
            self._task_report.update(x["task_ids"], y, y_pred, sample_weight)
        logs: dict[str, Any] = super().compute_metrics(x, y, y_pred, sample_weight)
        return logs

    def train_step(self, *args: Any) -> Any:
        """`keras.Model.train_step`, on a batch that was checked."""
        with on_checked_data(self):
            return step_that_keeps(self, self.kept.parts(), super().train_step, *args)

    def test_step(self, *args: Any) -> Any:
        """`keras.Model.test_step`, on a batch that was checked."""
        with on_checked_data(self):
            return super().test_step(*args)

    def predict_step(self, *args: Any) -> Any:
        """`keras.Model.predict_step`, on a batch that was checked."""
        with on_checked_data(self):
            return super().predict_step(*args)

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

    def forget_compiled(self) -> None:
        """Forgets the functions that were compiled for variables that are replaced."""
        self.train_function = self.test_function = self.predict_function = None
        _keras.list_torch_parameters(self)

    @property
    def _needs_targets(self) -> bool:
        return bool(self.compiled and self.loss is not None)

    def _preparation(self, with_targets: bool = True) -> Preparation:
        return Preparation(
            self.model_inputs, self._check_targets, with_targets, self._needs_targets
        )

    def _check_targets(self, x: dict[str, Tensor], y: TargetData) -> None:
        self.targets.check(self.model_inputs, x, y, self.loss)

    def _build_from(self, x: Data) -> None:
        """Builds the loss and the metrics, where Keras would run an epoch's hooks to get a batch.

        `TaskMix` would count that one as an epoch.
        """
        if isinstance(x, keras.utils.PyDataset) and keras.backend.backend() != "tensorflow":
            _keras.build_from_batch(self, x[0])
