"""How to train, as one object: rates and their course, batches, steps, and what ends a training."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_choice, check_flags, check_number, check_size, received
from keras_mpt.config import PromptTuningConfig
from keras_mpt.data.columns import is_for_all, settled
from keras_mpt.data.sampling import task_weights
from keras_mpt.data.texts import is_pair_of_columns
from keras_mpt.fitting.recompile import arguments_afresh, compile_again
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.training.best_weights import BestWeights
from keras_mpt.training.distillation import Distillation
from keras_mpt.training.resume import ResumeTraining
from keras_mpt.training.schedule import FALLS, WarmupDecay
from keras_mpt.training.stops import StepLimit, StopWhenLearned
from keras_mpt.training.two_speed import two_speed_optimizer
from keras_mpt.types import Config, Data, TargetData

_RATES = ("shared", "factors", "head")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `compile` and `fit` need to train in one way, and what that way is.

    `keras_mpt.recipes.few_shot()` and `keras_mpt.recipes.paper()` are two; another is made of one
    by `dataclasses.replace`, or here. `recipe.fit(model, x, y)` does all of it. Whoever calls
    `compile` and `fit` himself takes their arguments from it, one at a time.

    Adam has a learning rate each for P, the factors and heads (`two_speed_optimizer`), which rise
    to it over the first `warmup` of the steps and fall to 0 with the last (`WarmupDecay`). With
    validation data the best weights of the training are those that it ends with (`BestWeights`);
    without, `stop_loss` may end it (`StopWhenLearned`).

    Args:
        steps: int. The steps of the whole training, however many rows there are; `None` leaves them
            to `fit`'s own arguments, and rates stay what they are. Defaults to `None`.
        batch_size: int. Rows of a step. Defaults to `32`.
        shared: float. The learning rate of P; 0 leaves it as it is. Defaults to `0.01`.
        factors: float. That of the tasks' factors. Defaults to `0.1`.
        head: float. That of everything else that is trained. Defaults to `0.01`.
        relative: bool. Whether `shared` is a share of P's size, the root mean square of its numbers
            when the model is compiled, so that one recipe fits token embeddings of any size.
            Factors start at 1, and need no such thing. Defaults to `False`.
        warmup: float. The share of the steps in which rates rise, below 1. Defaults to `0.0`.
        decay: `"linear"`, `"cosine"`, or `None` for rates that do not fall. Defaults to
            `"linear"`.
        global_clipnorm: float. The largest norm of the gradients, those of P, of the factors and of
            heads each by themselves; `None` clips none. Defaults to `None`.
        metric: string, or dict of task name to string. What `BestWeights` chooses by. Defaults to
            `"accuracy"`.
        validations: int. About how many times a training is validated, at ends of epochs, the last
            one included. Defaults to `10`.
        stop_loss: float. The loss of `StopWhenLearned`, where nothing is validated; `None` trains
            all steps. Defaults to `None`.
        weights, size_limit: those of `TaskMix`. Default to `"uniform"` and `None`.
        sample_tasks: bool. Whether each batch holds a number of tasks that is drawn from 2 to all,
            as in the paper, or all of them. Defaults to `False`.
        prompt_tuning_init: string. Where P starts. Defaults to `"SAMPLE_VOCAB"`: at the embeddings
            of random tokens.

    Raises:
        ValueError: an argument that is out of its range.

    Example:
        ```python
        recipe = keras_mpt.recipes.few_shot(steps=4)
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, **recipe.config_arguments()
        )
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=1, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        model = keras_mpt.prompt_tune(backbone, config, num_classes=2)
        ids = np.arange(24).reshape(4, 6)
        x = {"token_ids": ids, "padding_mask": ids >= 0, "segment_ids": ids * 0}
        x["task_ids"], y = [0, 1, 0, 1], np.array([0, 1, 1, 0])

        recipe.fit(model, x, y, verbose=0)
        # The same, call by call:
        model.compile(**recipe.compile_arguments(model))
        model.fit(x, y, **recipe.fit_arguments(x), verbose=0)
        assert int(model.optimizer.iterations) == 4
        ```
    """

    steps: int | None = None
    batch_size: int = 32
    shared: float = 0.01
    factors: float = 0.1
    head: float = 0.01
    relative: bool = False
    warmup: float = 0.0
    decay: str | None = "linear"
    global_clipnorm: float | None = None
    metric: str | Mapping[str, str] = "accuracy"
    validations: int = 10
    stop_loss: float | None = None
    weights: str | Sequence[float] = "uniform"
    size_limit: int | None = None
    sample_tasks: bool = False
    prompt_tuning_init: str = "SAMPLE_VOCAB"

    def __post_init__(self) -> None:
        for name in ("steps", "size_limit"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        for name in ("batch_size", "validations"):
            check_size(name, getattr(self, name))
        for name in (*_RATES, "warmup"):
            check_number(name, getattr(self, name), least=0.0)
        for name in ("global_clipnorm", "stop_loss"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), above=0.0)
        if self.warmup >= 1:
            raise ValueError(
                "`warmup` should be a share of the steps, below 1. Received: "
                f"warmup={self.warmup!r}"
            )
        check_choice("decay", self.decay, FALLS)
        check_flags({"relative": self.relative, "sample_tasks": self.sample_tasks})
        BestWeights(self.metric, "max")
        # How many tasks there are is not known yet.
        listed = isinstance(self.weights, (list, tuple, np.ndarray))
        count = max(len(self.weights), 1) if listed else 1
        task_weights(self.weights, 1.0, [1] * count, self.size_limit)
        PromptTuningConfig(
            num_virtual_tokens=1,
            prompt_tuning_init=self.prompt_tuning_init,
            prompt_tuning_init_text="any",
        )

    def for_epochs(self, epochs: int, x: Data) -> Recipe:
        """The recipe with as many steps as so many epochs have.

        Args:
            epochs: int.
            x: what `fit` is given, as in `fit_arguments`.

        Returns:
            A `Recipe`.

        Raises:
            ValueError: epochs that are no size, or a stream whose length is not known.

        Example:
            ```python
            recipe = keras_mpt.recipes.few_shot(batch_size=2)
            assert recipe.for_epochs(10, ["fine", "awful", "great"]).steps == 20
            ```
        """
        per_epoch, _ = _steps_of_epoch(x, self.batch_size)
        return dataclasses.replace(self, steps=check_size("epochs", epochs) * per_epoch)

    def config_arguments(self) -> Config:
        """Arguments of a `PromptTuningConfig` or `MultitaskPromptTuningConfig`.

        Returns:
            A dict with `prompt_tuning_init`.
        """
        return {"prompt_tuning_init": self.prompt_tuning_init}

    def mix_arguments(self, datasets: Mapping[str, Any]) -> Config:
        """Arguments of a `TaskMix` of these tasks, whose epochs end where the model is validated.

        Args:
            datasets: dict of task name to data, as `TaskMix` takes it.

        Returns:
            A dict with `batch_size`, `weights` and `size_limit`, `max_tasks_per_batch` where tasks
            are drawn, and `steps` where the recipe has steps.

        Example:
            ```python
            datasets = {"tone": (["fine", "awful"], [1, 0]), "topic": (["goals"], [0])}
            recipe = keras_mpt.recipes.paper(steps=100)
            mix = keras_mpt.TaskMix(datasets, **recipe.mix_arguments(datasets))
            assert mix.steps == 10 and mix.max_tasks_per_batch == 2
            ```
        """
        arguments: Config = {
            "batch_size": self.batch_size,
            "weights": self.weights,
            "size_limit": self.size_limit,
        }
        most = min(len(datasets), self.batch_size)
        if self.sample_tasks and most > 1:
            arguments["max_tasks_per_batch"] = most
        if self.steps is not None:
            arguments["steps"] = -(-self.steps // self.validations)
        return arguments

    def compile_arguments(self, model: keras.Model) -> Config:
        """Arguments of the model's `compile`: the optimizer.

        Args:
            model: the prompt-tuned model, or the `Distillation`, that is to be trained.

        Returns:
            A dict with `optimizer`, a `keras.optimizers.MultiOptimizer` of its own.

        Raises:
            ValueError: another model, or a prompt of zeros where the rate of P is relative to it.
        """
        rates = {name: float(getattr(self, name)) for name in _RATES}
        if self.relative:
            rates["shared"] *= _size_of_prompt(model)
        return {"optimizer": two_speed_optimizer(**{n: self._adam(r) for n, r in rates.items()})}

    def fit_arguments(self, x: Data, validation_data: Data = None) -> Config:
        """Arguments of `fit` beside the data.

        Args:
            x: what `fit` is given, to count the steps of an epoch: arrays, text or columns, or a
                stream of known length, such as a `TaskMix`.
            validation_data: what `fit` is given, or `None`. Defaults to `None`.

        Returns:
            A dict with `epochs` and `callbacks`; `batch_size` where `x` is no stream;
            `validation_data` and `validation_freq` where there are any.

        Raises:
            ValueError: a recipe without steps, or a stream whose length is not known.
        """
        if self.steps is None:
            raise ValueError(
                "`steps` should be given for a recipe that says how long `fit` trains. Received: "
                "steps=None"
            )
        per_epoch, is_stream = _steps_of_epoch(x, self.batch_size)
        epochs = -(-self.steps // per_epoch)
        arguments: Config = {"epochs": epochs}
        if not is_stream:
            arguments["batch_size"] = self.batch_size
        callbacks: list[keras.callbacks.Callback] = []
        if self.steps % per_epoch:
            callbacks.append(StepLimit(self.steps))
        if validation_data is not None:
            callbacks.append(BestWeights(self.metric))
            count = min(self.validations, epochs)
            ends = {round(epochs * k / count) for k in range(1, count + 1)}
            arguments |= {"validation_data": validation_data, "validation_freq": sorted(ends)}
        elif self.stop_loss is not None:
            callbacks.append(StopWhenLearned(self.stop_loss))
        return {**arguments, "callbacks": callbacks}

    def fit(
        self,
        model: keras.Model,
        x: Data,
        y: TargetData = None,
        *,
        sample_weight: TargetData = None,
        validation_data: Data = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        resume: str | os.PathLike[str] | None = None,
        save_freq: str | int = "epoch",
        verbose: str | int = "auto",
    ) -> keras.callbacks.History:
        """Compiles the model with the recipe's optimizer, and trains it.

        Loss and metrics are those that the model was compiled with.

        Args:
            model: a prompt-tuned model, or a `Distillation`.
            x, y, sample_weight, verbose: as the model's `fit` takes them, with its defaults.
            validation_data: as `fit` takes it. Defaults to `None`.
            callbacks: list of further callbacks. Defaults to `None`.
            resume: string. A directory for `ResumeTraining`, which keeps what the recipe's
                callbacks know too. `x` is then a `TaskMix`, whose last epoch is trained to its end;
                past the recipe's steps rates are 0, where they fall. Defaults to `None`.
            save_freq: that of `ResumeTraining`. Defaults to `"epoch"`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            ValueError: what `compile_arguments`, `fit_arguments` and `fit` refuse.
        """
        x = settled(x) if isinstance(x, Mapping) else x
        arguments = self.fit_arguments(x, validation_data)
        own = arguments.pop("callbacks")
        last = []
        if resume is not None:
            # A run that stops amid an epoch is one to go on with.
            own = [c for c in own if not isinstance(c, StepLimit)]
            last = [ResumeTraining(resume, x, save_freq, callbacks=own)]
        optimizer = self.compile_arguments(model)["optimizer"]
        before = arguments_afresh(model)
        if before is None:
            model.compile(optimizer=optimizer)
        else:
            compile_again(model, before, optimizer)
        arguments["callbacks"] = [*own, *keras.tree.flatten(callbacks or []), *last]
        return model.fit(x, y, sample_weight=sample_weight, verbose=verbose, **arguments)

    def _adam(self, peak: float) -> Any:
        """Adam at a rate of this course; 0 as it is, which leaves variables as they are."""
        if peak == 0:
            return 0.0
        rate: Any = peak
        if self.steps is not None and (self.decay is not None or self.warmup):
            warmup_steps = min(round(self.warmup * self.steps), self.steps - 1)
            rate = WarmupDecay(peak, self.steps, warmup_steps, self.decay)
        return keras.optimizers.Adam(rate, global_clipnorm=self.global_clipnorm)


def check_recipe(recipe: Any) -> Recipe:
    """Refuses anything but a recipe.

    Args:
        recipe: what an argument of that name was given.
    """
    if not isinstance(recipe, Recipe):
        raise ValueError(
            "`recipe` should be a keras_mpt.recipes.Recipe, such as keras_mpt.recipes.few_shot(). "
            f"Received: recipe={received(recipe)}"
        )
    return recipe


def _size_of_prompt(model: Any) -> float:
    """The root mean square of P's numbers."""
    trained = model.student if isinstance(model, Distillation) else model
    if not isinstance(trained, PromptTunedModel):
        raise ValueError(
            "`model` should be a prompt-tuned model or a Distillation. Received: a "
            f"{type(model).__name__}"
        )
    size = float(np.sqrt(np.mean(np.square(to_numpy(trained.prompt.prompt_embeddings)))))
    if not (np.isfinite(size) and size > 0):
        raise ValueError(
            "`model` should have a prompt that is finite and not all zeros, as the learning rate "
            f"of P is relative to its size. Received: a prompt of size {size}"
        )
    return size


def _steps_of_epoch(x: Data, batch_size: int) -> tuple[int, bool]:
    """The steps of an epoch of `fit`, and whether the data are a stream."""
    x = settled(x)
    is_rows = isinstance(x, (dict, list, tuple)) or hasattr(x, "shape")
    if isinstance(x, dict):
        x = next((v for name, v in x.items() if not is_for_all(name, v)), ())
    if is_rows:
        x = x[0] if is_pair_of_columns(x) else x
        return max(-(-len(x) // batch_size), 1), False
    try:
        return max(len(x), 1), True
    except TypeError:
        raise ValueError(
            "`x` should be arrays, text or a stream of known length, such as a TaskMix: a recipe "
            "counts steps. Take `compile_arguments` from it, and give `fit` the rest. Received: "
            f"a {received(type(x).__name__)}"
        ) from None
