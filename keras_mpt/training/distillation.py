"""The source stage's second half: all tasks together, held close to their teachers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mpt.checks import check_choice, check_flag, check_number, is_integer
from keras_mpt.fitting import target_positions
from keras_mpt.fitting.fitting import Fitting
from keras_mpt.fitting.own_columns import Part, of_tasks, values_of
from keras_mpt.fitting.parts import mean_of_part
from keras_mpt.fitting.targets import mask_of
from keras_mpt.models.prompt_tuned_model import PromptTunedModel
from keras_mpt.models.tasks import multitask_config
from keras_mpt.splicing.insert import insert_constant
from keras_mpt.training.distances import (
    logits_distance,
    scores_distance,
    states_distance,
    weighted_mean,
)
from keras_mpt.training.multitask import check_multitask
from keras_mpt.training.teachers import Teachers, load_teachers
from keras_mpt.training.term_report import TermReport
from keras_mpt.types import Config, Tensor, Tensors

LOGITS, HIDDEN = "logits_kl", "hidden_mse"


class Distillation(Fitting):
    """Trains a student with teachers beside it: L_task + λ₁ L_logits + λ₂ L_hidden.

    L_logits is τ² · KL(teacher ‖ student) of the output distributions, of a score (a task of one
    class) the squared difference, L_hidden the squared difference of hidden states, its mean or, as
    the paper has it, its sum. Rows count in both by their sample weights; padding counts in
    neither. The teachers' pass is one for the
    whole mixed batch, without gradients and without dropout. What is trained are the student's own
    variables: after `fit`, save and use the student. `evaluate` and `predict` are the student's.

    Logs hold `logits_kl` and `hidden_mse`, of all rows and of each of up to 32 tasks under its name
    (`topic_logits_kl`), beside the task's loss and metrics.

    Args:
        student: a prompt-tuned model with a `MultitaskPromptTuningConfig`.
        teachers: directory with a teacher's adapter under each task's name, as `train_teachers`
            leaves it; or dict of task name to an adapter's directory or to a prompt-tuned model of
            one prompt on the student's own backbone.
        logits_weight: float. λ₁; 0 leaves the term out. Defaults to `0.9`.
        hidden_weight: float. λ₂; 0 leaves the term out. Defaults to `0.9`.
        temperature: float. τ. Defaults to `1.0`.
        hidden_layers: int or list of ints: which of the backbone's layers. The last, −1, is the
            backbone's own output. An encoder-decoder's are its decoder's. Defaults to `-1`.
        prompt_positions: bool. Whether hidden states at the prompt's positions count too. A causal
            model then computes each row's prompt. Defaults to `False`.
        hidden_reduction: `"mean"`, or `"sum"`, the paper's: L_hidden adds up the squares of a row's
            layers, tokens and width, S·d numbers of a layer, and is so many times as large; a batch
            has the mean of its rows either way. Defaults to `"mean"`.

    Raises:
        ValueError: a teacher that is missing for a task or does not fit the student, a student
            without tasks, or a weight, temperature or layer out of range.

    Example:
        ```python
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=100, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16
        )
        ids = np.array([[2, 5, 6, 3], [2, 7, 8, 3]])
        x = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": 0 * ids}
        datasets = {"tone": (x, np.array([0, 1])), "topic": (x, np.array([2, 0]))}
        config = keras_mpt.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)
        teachers = keras_mpt.train_teachers(
            backbone, datasets, tmp_path, config, num_classes=[2, 3], epochs=1
        )
        config = keras_mpt.MultitaskPromptTuningConfig(
            task_type="SEQ_CLS", num_virtual_tokens=4, num_tasks=2, task_names=list(datasets)
        )
        student = keras_mpt.prompt_tune(backbone, config, num_classes=[2, 3])
        distillation = keras_mpt.Distillation(student, teachers)
        history = distillation.fit(keras_mpt.TaskMix(datasets, batch_size=4), verbose=0)
        assert "topic_logits_kl" in history.history
        student.save_adapter(tmp_path / "source")
        ```

    Source: Wang et al. 2023 (arXiv 2303.02861), section 3.1.
    """

    def __init__(
        self,
        student: PromptTunedModel,
        teachers: Any,
        logits_weight: float = 0.9,
        hidden_weight: float = 0.9,
        temperature: float = 1.0,
        hidden_layers: int | Sequence[int] = -1,
        prompt_positions: bool = False,
        hidden_reduction: str = "mean",
        **kwargs: Any,
    ) -> None:
        check_multitask("student", student)
        check_choice("hidden_reduction", hidden_reduction, ("mean", "sum"))
        check_number("logits_weight", logits_weight, least=0.0)
        check_number("hidden_weight", hidden_weight, least=0.0)
        check_number("temperature", temperature, above=0.0)
        layers = _checked_layers(hidden_layers, len(student.splice.hidden_states))
        models = load_teachers(student, teachers)
        super().__init__(
            student.model_inputs, student.targets, has_one_output=student.has_one_output, **kwargs
        )
        self.student = student
        self.kept = student.kept
        self.config = student.config
        self.term_weights = {LOGITS: float(logits_weight), HIDDEN: float(hidden_weight)}
        self.temperature = float(temperature)
        self.hidden_layers = layers if hidden_weight else ()
        self.prompt_positions = check_flag("prompt_positions", prompt_positions)
        self.hidden_reduction = hidden_reduction
        self._logits_parts = _logits_parts(student, self.temperature)
        self.teacher_models = models
        self.teachers = Teachers(student, models)
        self.teacher_prompt = self.teachers.prompt
        self.built = True
        self._compile_as_student()

    @property
    def always_frozen(self) -> list[keras.layers.Layer]:
        """The teachers, and what is frozen in the student."""
        return [*self.teacher_models, self.teacher_prompt, *self.student.always_frozen]

    @property
    def takes_positions(self) -> bool:
        """Whether the student's and the teachers' logits are needed at `target_positions` alone."""
        return self.student.takes_positions and target_positions.is_ours(type(self))

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensors:
        """The student's outputs; in training, beside each row's distances from its teacher."""
        if not training or not self.report.terms:
            return self.student.call(inputs, training)
        given = inputs, self.hidden_layers, self.prompt_positions
        outputs, states = self.student.call_with_states(*given, training=training)
        taught, taught_states = self.teachers.call_with_states(*given)
        distances = {}
        if LOGITS in self.report.terms:
            with of_tasks(inputs["task_ids"]):
                distances[LOGITS] = values_of(self._logits_parts, taught, outputs)
        if HIDDEN in self.report.terms:
            mask = self._state_mask(inputs)
            pairs = zip(taught_states, states, strict=True)
            how = self.hidden_reduction
            per_layer = ops.stack([states_distance(t, s, mask, how) for t, s in pairs])
            over_layers = ops.mean if how == "mean" else ops.sum
            distances[HIDDEN] = over_layers(per_layer, axis=0)
        return {"outputs": outputs, **distances}

    def compute_output_spec(
        self, inputs: dict[str, Tensor], training: bool | None = None
    ) -> Tensors:
        """The student's."""
        return self.student.compute_output_spec(inputs, training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`keras.Model.compile` as the student's class has it, with its defaults.

        Args:
            *args: those of the student's `compile`.
            **kwargs: likewise. The loss is L_task.
        """
        self.student.compile(*args, **kwargs)
        self._compile_as_student()

    def _compile_as_student(self) -> None:
        """Compiles as the student is, with a report of the terms for each task if it has one."""
        arguments = Fitting.compile_arguments(self.student)
        terms = [term for term, weight in self.term_weights.items() if weight]
        names = multitask_config(self.student).names
        self.report = TermReport(terms, names if arguments["task_logs"] else [])
        super().compile(**arguments)

    @property
    def run_settings(self) -> Config:
        """What makes this training another than one with other arguments."""
        settings = {
            **self.term_weights,
            "temperature": self.temperature,
            "hidden_layers": list(self.hidden_layers),
            "prompt_positions": self.prompt_positions,
            "student": {**self.config.to_dict(), **self.student.head_settings()},
        }
        if self.hidden_reduction != "mean":  # Runs of before there was a choice go on.
            settings["hidden_reduction"] = self.hidden_reduction
        return {"settings": settings}

    @property
    def metrics(self) -> list[keras.Metric]:
        """The task's metrics, and the distances from the teachers."""
        return super().metrics + self.report.metrics

    def compute_loss(
        self,
        x: Any = None,
        y: Tensor = None,
        y_pred: Tensors = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """L_task, and in training λ₁ L_logits + λ₂ L_hidden."""
        outputs, distances = _split(y_pred)
        loss = super().compute_loss(x, y, outputs, sample_weight, training)
        for term, distance in distances.items():
            weights = self.targets.weights(self.model_inputs, x, distance, sample_weight)
            mean = mean_of_part(weighted_mean(distance, weights), x, weights, training)
            loss = loss + self.term_weights[term] * mean
        return loss

    def compute_metrics(
        self, x: dict[str, Tensor], y: Tensor, y_pred: Tensors, sample_weight: Tensor = None
    ) -> dict[str, Any]:
        """Updates the metrics; logs of validation data are the student's."""
        outputs, distances = _split(y_pred)
        for term, distance in distances.items():
            weights = self.targets.weights(self.model_inputs, x, distance, sample_weight)
            self.report.update(term, distance, weights, x["task_ids"])
        logs = super().compute_metrics(x, y, outputs, sample_weight)
        return logs if distances else self.report.without(logs)

    def exact_metrics(self, data: Any, logs: dict[str, float], batch_size: int | None) -> Any:
        """The student's."""
        return self.student.exact_metrics(data, logs, batch_size)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refused: the student is what is saved."""
        raise ValueError(
            "The student should be saved, by `distillation.student.save(…)` or "
            "`distillation.student.save_adapter(…)`; its teachers are saved as they are. Received: "
            "a Distillation to save"
        )

    def _state_mask(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """Which positions of the hidden states count, (B, S) or (B, L + S), or `None` for all."""
        splice = self.student.splice
        mask = mask_of(self.model_inputs, inputs, -1)
        if mask is None or not (self.prompt_positions and splice.states_have_prompt):
            return mask
        return insert_constant(mask, 1, splice.num_virtual_tokens, splice.place(inputs))


def _logits_parts(student: PromptTunedModel, temperature: float) -> tuple[Part, ...]:
    """How far the outputs of classes and of scores are from a teacher's."""
    classes = functools.partial(logits_distance, temperature=temperature)
    counts = student.targets.setting(student.model_inputs.task_names).of_tasks
    of_scores = tuple(k for k, count in enumerate(counts) if count == 1)
    of_classes = tuple(k for k, count in enumerate(counts) if count != 1)
    if not of_scores or not of_classes:
        return (Part(None, scores_distance if of_scores else classes),)
    return Part(of_classes, classes), Part(of_scores, scores_distance, 1)


def _split(y_pred: Tensors) -> tuple[Tensors, dict[str, Tensor]]:
    """A call's outputs, and the distances that stand beside them in training."""
    if not (isinstance(y_pred, dict) and "outputs" in y_pred):
        return y_pred, {}
    return y_pred["outputs"], {k: v for k, v in y_pred.items() if k != "outputs"}


def _checked_layers(layers: Any, count: int) -> tuple[int, ...]:
    given = tuple(layers) if isinstance(layers, (list, tuple)) else (layers,)
    if not given or not all(is_integer(i, -count, count) for i in given):
        raise ValueError(
            f"`hidden_layers` should be one or several ints in [{-count}, {count}), the backbone's "
            f"layers. Received: hidden_layers={layers!r}"
        )
    return tuple(int(i) for i in given)
