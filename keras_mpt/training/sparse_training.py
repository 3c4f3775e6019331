"""Training of very many tasks, in which a step costs what its own tasks do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mpt._keras import has_strategy
from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_size
from keras_mpt.fitting import target_positions
from keras_mpt.fitting.fitting import Fitting
from keras_mpt.fitting.kept import Kept, KeptPart
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.processes import process_count
from keras_mpt.training.multitask import check_multitask
from keras_mpt.training.pages import Pages, Window
from keras_mpt.types import Config, Tensor, Tensors

# Optimizers that treat each number for itself.
_ONE_BY_ONE = ("SGD", "Adam", "AdamW", "Adamax", "Nadam", "RMSprop", "Adagrad", "Adadelta", "Lion")


class SparseTraining(Fitting):
    """Trains a model of very many tasks; a step costs what its own tasks do, whatever T is.

    In a plain `fit`, each step reads and writes the factors of all T tasks, and all that the
    optimizer keeps of them: with 100,000 tasks that takes far longer than the backbone. Here the
    factors of the batch's tasks alone, and the optimizer's numbers of these, are brought into a
    window of K tasks, trained there, and taken back. P, and a head, are trained as ever.

    So a task that a batch does not hold keeps its factors to the bit, where a plain Adam moves them
    on by its momentum. Where that makes no difference, the result is the same: with every task in
    each batch, by any optimizer, and by SGD without momentum whatever the batches hold. Adam's
    rule is that of `torch.optim.SparseAdam`: a task's moments change in its own steps, while the
    number of steps, which corrects their start, is that of all. Weight decay, too, comes to a task
    in its own steps alone.

    `fit` takes what the model's takes. The model's factors are current after each step, so
    validation data, callbacks and `evaluate` see them; after `fit`, save and use the model. A head
    of each task's own is trained as a whole, at a cost that grows with T.

    Args:
        model: a prompt-tuned model with a `MultitaskPromptTuningConfig`.
        tasks_per_batch: int. K, the most different tasks that a batch holds. Defaults to `32`.

    Raises:
        ValueError: a model without tasks or without logits; in `compile` an optimizer that does not
            treat each number for itself; in `fit` a batch of more tasks, before its step; several
            processes or devices; a model whose tasks are others than they were.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=1000
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=2)
        training = keras_mpt.SparseTraining(model, tasks_per_batch=4)
        training.compile(keras_mpt.two_speed_optimizer())
        ids = np.array([[2, 5, 6, 3], [2, 7, 8, 3]])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": 0 * ids}
        training.fit({**x, "task_ids": [7, 912]}, np.array([0, 1]), verbose=0)
        model.save_adapter(tmp_path / "adapter")
        ```

    Source: `torch.optim.SparseAdam`, for what an optimizer does with a part of a table.
    """

    def __init__(self, model: PromptTunedModel, tasks_per_batch: int = 32, **kwargs: Any) -> None:
        check_multitask("model", model)
        slots = min(check_size("tasks_per_batch", tasks_per_batch), model.prompt.num_tasks)
        super().__init__(
            model.model_inputs, model.targets, has_one_output=model.has_one_output, **kwargs
        )
        self.model = model
        self.kept = _KeptBeside(model)
        self.window = Window(model.prompt, slots)
        self.pages = Pages(model.prompt, self.window)
        self.built = True
        self._compile_as_model()

    @property
    def always_frozen(self) -> list[keras.layers.Layer]:
        """What is frozen in the model."""
        return self.model.always_frozen

    @property
    def takes_positions(self) -> bool:
        """As the model."""
        return self.model.takes_positions and target_positions.is_ours(type(self))

    @property
    def run_settings(self) -> Config:
        """Refused: a run is resumed with the optimizer's numbers of all tasks."""
        raise ValueError(
            "`ResumeTraining` should be used with the model's own `fit`. Received: a SparseTraining"
        )

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """P, the window's factors and the head: not those of all tasks."""
        return self._but_tables(super().trainable_variables)

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """Likewise."""
        return self._but_tables(super().trainable_weights)

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All others, the factors of all tasks among them."""
        trained = {id(v) for v in self.trainable_variables}
        return [v for v in self.variables if id(v) not in trained]

    @property
    def non_trainable_weights(self) -> list[keras.Variable]:
        """Likewise."""
        trained = {id(v) for v in self.trainable_weights}
        return [v for v in self.weights if id(v) not in trained]

    def _but_tables(self, variables: list[keras.Variable]) -> list[keras.Variable]:
        tables = {id(v) for v in _tables(self.model)}
        return [v for v in variables if id(v) not in tables]

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensors:
        """The model's outputs; in training, those of the window's factors."""
        if not training:
            return self.model.call(inputs, training)
        own: Any = self.window
        return self.model.call_with_states(inputs, (), training=training, prompt=own)[0]

    def compute_output_spec(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensors:
        """The model's."""
        return self.model.compute_output_spec(inputs, training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.compile` as the model's class has it, with its defaults.

        Args:
            *args: those of the model's `compile`.
            **kwargs: likewise.
        """
        before = Fitting.compile_arguments(self.model)
        self.model.compile(*args, **kwargs)
        try:
            _check_optimizer(self.model.optimizer)
        except ValueError:
            self.model.compile(**before)
            raise
        self._compile_as_model()

    def _compile_as_model(self) -> None:
        super().compile(**Fitting.compile_arguments(self.model))

    def make_train_function(self, force: bool = False) -> None:
        """As `keras.Model`; around each step the batch's tasks are in the window."""
        _check_optimizer(self.optimizer)
        _check_alone(self)
        if not self.pages.are_of(_tables(self.model)):
            raise ValueError(
                "`SparseTraining` should be made anew after tasks were added or removed. Received: "
                f"one for {self.window.tasks} tasks, and a model of {self.model.prompt.num_tasks}"
            )
        super().make_train_function(force)
        self.pages.follow(self.optimizer)
        if not hasattr(self.train_function, "on_pages"):
            self.train_function = _on_pages(self, self.train_function)

    def exact_metrics(self, data: Any, logs: dict[str, float], batch_size: int | None) -> Any:
        """The model's."""
        return self.model.exact_metrics(data, logs, batch_size)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the model is what is saved."""
        raise ValueError(
            "The model should be saved, by `training.model.save(…)` or "
            "`training.model.save_adapter(…)`. Received: a SparseTraining to save"
        )


class _KeptBeside(Kept):
    """What training leaves as it is of a model, but for factors: those never leave their table."""

    def __init__(self, model: PromptTunedModel) -> None:
        self._model = model

    def layers(self) -> list[keras.layers.Layer]:
        return self._model.kept.layers()

    def parts(self) -> list[KeptPart]:
        tables = {id(v) for v in _tables(self._model)}
        return [part for part in self._model.kept.parts() if id(part.variable) not in tables]

    def settle(self) -> None:
        self._model.kept.settle()


def _tables(model: PromptTunedModel) -> tuple[keras.Variable, keras.Variable]:
    """The factors of all tasks."""
    return model.prompt.prefix_task_cols, model.prompt.prefix_task_rows


def _check_optimizer(optimizer: Any) -> None:
    """Refuses one whose rule for a number looks at others, or at steps that it was not in."""
    several = isinstance(optimizer, keras.optimizers.MultiOptimizer)
    for own in optimizer.optimizers if several else [optimizer]:
        is_known = type(own).__module__.startswith("keras.") and type(own).__name__ in _ONE_BY_ONE
        if not is_known or own.use_ema or own.gradient_accumulation_steps:
            how = {"use_ema": own.use_ema} if own.use_ema else {}
            steps = own.gradient_accumulation_steps
            how |= {"gradient_accumulation_steps": steps} if steps else {}
            shown = "".join(f" with {name}={value}" for name, value in how.items())
            raise ValueError(
                f"`optimizer` should be one of {', '.join(_ONE_BY_ONE)}, or a MultiOptimizer of "
                "them, without averages of weights (`use_ema`) and without "
                f"`gradient_accumulation_steps`. Received: a {type(own).__name__}{shown}"
            )


def _check_alone(model: SparseTraining) -> None:
    several = process_count() > 1 or keras.distribution.distribution() is not None
    if several or has_strategy(model):
        raise ValueError(
            "`SparseTraining` should run in one process on one device. Received: "
            f"{process_count()} processes, distribution={keras.distribution.distribution()}"
        )


def _on_pages(model: SparseTraining, function: Callable[..., Any]) -> Callable[..., Any]:
    """A `train_function` that has each batch's tasks in the window while it runs."""

    def holding(batch: Any) -> Any:
        ids = to_numpy(batch[0]["task_ids"])
        tasks, slots = np.unique(ids), model.window.slots
        if len(tasks) > slots:
            raise ValueError(
                "`tasks_per_batch` should be at least the number of different tasks in a batch. "
                f"Received: tasks_per_batch={slots} and a batch of {len(tasks)} tasks"
            )
        kept = np.zeros(len(tasks), bool)
        for variable, mask in model.model.kept.parts():
            if variable is model.model.prompt.prefix_task_cols:
                kept = mask[tasks, 0, 0]
        return model.pages.holding(tasks, kept)

    def on_jax(state: Any, iterator: Any) -> Any:
        batch = next(iterator)
        with holding(batch):
            return function(state, iter([batch]))

    def on_tensorflow(iterator: Any) -> Any:
        import tensorflow as tf

        batch = next(iterator)
        with holding(batch):
            return function(iter(tf.data.Dataset.from_tensors(batch)))

    def on_torch(batches: Any) -> Any:
        [batch] = batches
        with holding(batch):
            return function(batches)

    backends: dict[str, Any] = {"jax": on_jax, "tensorflow": on_tensorflow, "torch": on_torch}
    found = backends[keras.backend.backend()]
    found.on_pages = found.is_whole = True  # Keras asks for it again before each `fit`.
    return found
