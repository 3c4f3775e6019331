"""`fit`, `evaluate` and `predict` on checked data, with a report per task."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mpt import _keras
from keras_mpt.checks import check_flag
from keras_mpt.data.task_mix import shuffle_of
from keras_mpt.fitting import saving, step_data
from keras_mpt.fitting.alone import alone
from keras_mpt.fitting.frozen import freeze
from keras_mpt.fitting.kept import Kept, step_that_keeps
from keras_mpt.fitting.measuring import noted
from keras_mpt.fitting.model_inputs import ModelInputs
from keras_mpt.fitting.objective import Objective
from keras_mpt.fitting.other_names import explaining
from keras_mpt.fitting.own_columns import OwnColumnsLoss, noting_losses, of_tasks
from keras_mpt.fitting.parts import logs_of_part, loss_of_part
from keras_mpt.fitting.preparation import build_from, preparation_of
from keras_mpt.fitting.recompile import follow_trained
from keras_mpt.fitting.steps import data_are_checked, on_checked_data, whole_steps
from keras_mpt.fitting.streams import is_stream
from keras_mpt.fitting.targets import Targets
from keras_mpt.fitting.task_logs import TaskHistory, as_list, without_gaps
from keras_mpt.fitting.task_report import TaskReport
from keras_mpt.fitting.together import together
from keras_mpt.fitting.weights import check_class_weight
from keras_mpt.splicing.frozen_products import frozen_products
from keras_mpt.types import Config, Data, TargetData, Tensor, Tensors


@explaining
class Fitting(keras.Model, abc.ABC):
    """A `keras.Model` whose data are checked first, and which keeps frozen what is frozen.

    Keras hands `trainable` down to all layers: thawed again, a model would train its backbone.

    Args:
        model_inputs: the model's inputs.
        targets: the kind of targets that it is trained towards.
        has_one_output: bool. Whether the model gives one tensor. Defaults to `True`.
        **kwargs: those of `keras.Model`.
    """

    loss: Any  # Keras's own, as the next three, and wrapped or set here.
    train_function: Any
    test_function: Any
    predict_function: Any
    compiled_for: int | None = None
    measured: Any = None  # What `measuring.py` notes.
    save, save_weights = saving.save, saving.save_weights

    def __init__(
        self,
        model_inputs: ModelInputs,
        targets: Targets,
        has_one_output: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _keras.settle_training(self)
        self.model_inputs, self.targets = model_inputs, targets
        self.has_one_output, self.kept = has_one_output, Kept()
        self.objective: Objective | None = None
        self.task_report = TaskReport((), None)

    @property
    @abc.abstractmethod
    def always_frozen(self) -> list[keras.layers.Layer]:
        """The layers that nothing trains, whatever `trainable` is set to."""

    @property
    def takes_positions(self) -> bool:
        """Whether a call gives outputs at `target_positions` alone, where its inputs have these."""
        return False

    def exact_metrics(self, data: Any, logs: dict[str, float], batch_size: int | None) -> Any:
        """The metrics among `logs` that one pass over prepared data cannot have: none."""
        return {}

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
        with frozen_products():
            return super().__call__(inputs, *args, **kwargs)

    @alone
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
            x: dict of arrays or columns: the backbone's inputs, each (N, S) integer, and `task_ids`
                (N,) integer or names. With a preprocessor, `{"text": [...], "task_ids": [...]}`, or
                "prompts" and "responses". Or a stream of such batches, `tf.data`'s, PyTorch's or
                Grain's, a `keras.utils.PyDataset` or a generator. Defaults to `None`.
            y: array, list or column of targets (N, …), where `x` is no stream. Defaults to `None`.
            batch_size: int. Rows of a step; `None` is Keras's 32. Defaults to `None`.
            validation_data: as `x`, or `(x, y)` or `(x, y, sample_weight)`. Defaults to `None`.
            shuffle: bool. `None` is Keras's `True`; batches of a `TaskMix` come in its own order,
                and `True` is refused. Defaults to `None`.
            class_weight: dict of class to weight, for one class per row. Defaults to `None`.
            sample_weight: float array or list (N,) or (N, S). Defaults to `None`.
            epochs, verbose, callbacks, validation_split, initial_epoch, steps_per_epoch,
                validation_steps, validation_batch_size, validation_freq: as in
                `keras.Model.fit`, with its defaults.

        Returns:
            A `keras.callbacks.History`: the loss and metrics of all rows, and those of each of up
            to 32 tasks that had rows, such as `topic_loss`, with NaN in an epoch without them.

        Raises:
            ValueError: wrong data. Arrays are checked before the first step; a stream's batch is
                checked before the step that it is for.
        """
        check_class_weight(class_weight, self.targets.several_per_row)
        shuffle = shuffle_of(x, shuffle)
        follow_trained(self)
        prepare = preparation_of(self)
        with prepare.plain_errors(), together(self, x, callbacks) as callbacks:
            x, y, sample_weight = prepare(x, y, sample_weight)
            if is_stream(validation_data):
                validation_data, _, _ = prepare(validation_data)
            elif validation_data is not None:
                validation_data = prepare(*keras.utils.unpack_x_y_sample_weight(validation_data))
            x = build_from(self, x, y, sample_weight)
            return super().fit(
                x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=without_gaps(callbacks, self.metrics, TaskHistory),
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

    @alone
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
            x, y, batch_size, sample_weight: as in `fit`. They default to `None`.
            verbose, steps, callbacks: as in `keras.Model.evaluate`, with its defaults.
            return_dict: bool. Whether to give a dict by name: each task's loss and metrics stand
                under its name. Defaults to `False`.
            **kwargs: what Keras's own `fit` gives.

        Returns:
            What `keras.Model.evaluate` returns.
        """
        prepare = preparation_of(self)
        with prepare.plain_errors():
            if not _keras.is_validation_of_fit(kwargs):
                x, y, sample_weight = prepare(x, y, sample_weight)
                x = build_from(self, x, y, sample_weight)
            callbacks = without_gaps(callbacks, self.metrics)
            given = (x, y, batch_size, verbose, sample_weight, steps, callbacks, True)
            logs = noted(self, super().evaluate(*given, **kwargs), given, kwargs)
            return logs if return_dict else as_list(logs, self.metrics)

    @alone
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
            batch_size, verbose, steps, callbacks: as in `keras.Model.predict`, with its defaults.

        Returns:
            The model's outputs as NumPy arrays.
        """
        prepare = preparation_of(self, with_targets=False)
        with prepare.plain_errors():
            return super().predict(prepare(x)[0], batch_size, verbose, steps, callbacks)

    @alone
    def train_on_batch(
        self,
        x: Data,
        y: TargetData = None,
        sample_weight: TargetData = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """`keras.Model.train_on_batch`, on arrays as `fit` takes them."""
        check_class_weight(class_weight, self.targets.several_per_row)
        follow_trained(self)
        x, y, sample_weight = preparation_of(self)(x, y, sample_weight)
        return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)

    @alone
    def test_on_batch(
        self,
        x: Data,
        y: TargetData = None,
        sample_weight: TargetData = None,
        return_dict: bool = False,
    ) -> Any:
        """`keras.Model.test_on_batch`, on arrays as `fit` takes them."""
        return super().test_on_batch(*preparation_of(self)(x, y, sample_weight), return_dict)

    @alone
    def predict_on_batch(self, x: Data) -> Any:
        """`keras.Model.predict_on_batch`, on arrays as `fit` takes them."""
        return super().predict_on_batch(preparation_of(self, with_targets=False)(x)[0])

    def prepared(
        self,
        x: Data,
        y: TargetData = None,
        sample_weight: TargetData = None,
        needs_targets: bool = False,
    ) -> tuple[Data, TargetData, TargetData]:
        """Data checked and tokenized, as `fit` does it: what it would train on.

        Args:
            x, y, sample_weight: as in `fit`.
            needs_targets: bool. Whether data are refused that `fit` would find no targets in.
                Defaults to `False`.

        Returns:
            `(x, y, sample_weight)`.
        """
        return preparation_of(self, needs_targets=needs_targets, for_step=False)(
            x, y, sample_weight
        )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.compile`; each task gets its own copy of the loss and the metrics.

        Names of losses and metrics mean those of logits. `loss`, `loss_weights`, `metrics` and
        `weighted_metrics` may be dicts by task; a task without a loss in it has the default.

        Args:
            *args, **kwargs: those of `keras.Model.compile`. `task_logs=False` leaves out the tasks.

        Raises:
            ValueError: a loss or metric that reads logits as probabilities, or is wrong for a task.
        """
        task_logs = check_flag("task_logs", kwargs.pop("task_logs", True))
        given = inspect.signature(super().compile).bind(*args, **kwargs).arguments
        goals = {name: given.pop(name, None) for name in Objective.arguments}
        names, objective = self.model_inputs.task_names, None
        if self.has_one_output:  # Of several, Keras may compute a loss each.
            objective = Objective(self.targets.setting(names), **goals)
        _keras.forget_compile_arguments(self)
        super().compile(**(goals if objective is None else objective.for_keras()), **given)
        _keras.keep_compile_arguments(self, {**goals, "task_logs": task_logs})
        if isinstance(self.loss, OwnColumnsLoss):  # What a user may hand on is what was given.
            self.loss = goals["loss"]
        self.objective = objective
        self.task_report = TaskReport(names if task_logs else (), objective)

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
        return super().metrics + self.task_report.metrics

    def compute_loss(
        self,
        x: dict[str, Tensor] | None = None,
        y: Tensor = None,
        y_pred: Tensors = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The loss over the targets that count."""
        x = x or {}
        data = step_data.of_batch(self, x, y, y_pred, sample_weight)
        with of_tasks(x.get("task_ids")), noting_losses(data.loss_weight) as losses:
            loss = super().compute_loss(x, data.y, y_pred, data.loss_weight, training)
        step_data.keep_losses(y_pred, losses)
        return loss_of_part(loss, x, data.loss_weight, self.objective, training)

    def compute_metrics(
        self, x: dict[str, Tensor], y: Tensor, y_pred: Tensors, sample_weight: Tensor = None
    ) -> dict[str, Any]:
        """Updates the metrics of all rows and of each task."""
        data = step_data.of_metrics(self, x, y, y_pred, sample_weight)
        with of_tasks(x.get("task_ids")):
            self.task_report.update(x.get("task_ids"), data)
            logs: dict[str, Any] = super().compute_metrics(x, *data.for_metrics)
        return logs_of_part(logs)

    def train_step(self, *args: Any) -> Any:
        """`keras.Model.train_step`, on a batch that was checked."""
        with on_checked_data(self), step_data.keeping_losses():
            return step_that_keeps(self, self.kept.parts(), super().train_step, *args)

    def test_step(self, *args: Any) -> Any:
        """`keras.Model.test_step`, on a batch that was checked."""
        with on_checked_data(self), step_data.keeping_losses():
            return super().test_step(*args)

    def predict_step(self, *args: Any) -> Any:
        """`keras.Model.predict_step`, on a batch that was checked."""
        with on_checked_data(self):
            return super().predict_step(*args)

    def make_train_function(self, force: bool = False) -> None:
        """As `keras.Model`; what breaks off leaves the model its values.

        The optimizer's are made before: TensorFlow would trace the first batch twice to make them.
        """
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        super().make_train_function(force)
        self.train_function = whole_steps(self, "train", self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        """As `keras.Model`; what breaks off leaves the model its values."""
        super().make_test_function(force)
        self.test_function = whole_steps(self, "test", self.test_function)

    def make_predict_function(self, force: bool = False) -> None:
        """As `keras.Model`; what breaks off leaves the model its values."""
        super().make_predict_function(force)
        self.predict_function = whole_steps(self, "predict", self.predict_function)

    def forget_compiled(self) -> None:
        """Forgets the functions that were compiled for variables that are replaced."""
        self.train_function = self.test_function = self.predict_function = None
        _keras.list_torch_parameters(self)
