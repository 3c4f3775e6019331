"""What a model is compiled for: each task's loss and metrics, and what Keras is given for them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np

from keras_mpt._keras import mean_values, with_direction
from keras_mpt.arrays import to_numpy
from keras_mpt.checks import check_number, received
from keras_mpt.fitting.compile_defaults import default_loss, is_auto
from keras_mpt.fitting.losses import (
    ACCURACY,
    Kind,
    accuracy_of,
    is_of_a_user,
    is_per_target,
    kind_of,
    loss_on_logits,
    metric_on_logits,
)
from keras_mpt.fitting.own_columns import OwnColumnsLoss, OwnColumnsMean, Part, by_shapes
from keras_mpt.fitting.setting import Setting
from keras_mpt.types import Config, Tensor


@dataclasses.dataclass(frozen=True)
class Goal:
    """What one task is trained for; tasks that are trained for the same share one.

    Attributes:
        loss: its loss, of logits; `None` for none.
        kind: the kind of targets that the loss takes.
        classes: int. Its number of classes, or `None`.
        weight: float. What its loss is multiplied by.
    """

    loss: Any
    kind: Kind = Kind.UNKNOWN
    classes: int | None = None
    weight: float = 1.0

    @property
    def ignored(self) -> int | None:
        """The label that does not count under the loss, or `None`."""
        return getattr(self.loss, "ignore_class", None)

    @property
    def sort(self) -> tuple[Kind, int | None, bool]:
        """What targets must be."""
        return self.kind, self.ignored, self.classes == 1

    @property
    def reduction(self) -> str | None:
        """How the loss makes one number of many."""
        is_object = isinstance(self.loss, keras.losses.Loss)
        return self.loss.reduction if is_object else "sum_over_batch_size"

    def values(self, y: Tensor, y_pred: Tensor) -> Tensor:
        """A loss per row or token."""
        loss = self.loss
        return loss.call(y, y_pred) if isinstance(loss, keras.losses.Loss) else loss(y, y_pred)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A metric that was asked for.

    Attributes:
        metric: what Keras takes.
        weighted: whether sample weights count in it.
        task: int. The task that it is asked for; `None` for all rows and each task.
    """

    metric: Any
    weighted: bool
    task: int | None = None

    def is_common(self, weighted: bool) -> bool:
        """Whether it is asked for of all rows, with weights or without."""
        return self.task is None and self.weighted is weighted


class Objective:
    """A model's goals, one per task, and what Keras compiles for them.

    Args:
        setting: what is known of the model.
        loss: what `compile` was given: a loss, or a dict of task name to loss.
        loss_weights: likewise: a number, or a dict of task name to number.
        metrics: likewise: a list, or a dict of task name to list.
        weighted_metrics: likewise.

    Raises:
        ValueError: a loss or metric that cannot be right for a task.
    """

    # The arguments of `compile` that it stands for.
    arguments: ClassVar[tuple[str, ...]] = ("loss", "loss_weights", "metrics", "weighted_metrics")

    def __init__(
        self,
        setting: Setting,
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
    ) -> None:
        self.setting = setting
        self.goals = _goals(setting, loss, loss_weights)
        if is_auto(metrics) and setting.ignored is not None:  # Weighted: such a label has 0.
            metrics, weighted_metrics = None, weighted_metrics or "auto"
        self.asked = self._asked("metrics", metrics, False)
        self.asked += self._asked("weighted_metrics", weighted_metrics, True)

    @property
    def has_loss(self) -> bool:
        """Whether there is anything to train for."""
        return self.goals[0].loss is not None

    def for_keras(self) -> Config:
        """The arguments as Keras takes them, for all rows together."""
        metrics = [self._of_own_columns(a.metric) for a in self.asked if a.is_common(False)]
        weighted = [self._of_own_columns(a.metric) for a in self.asked if a.is_common(True)]
        return {
            "loss": self._keras_loss(),
            "loss_weights": None,
            "metrics": metrics or None,
            "weighted_metrics": weighted or None,
        }

    @property
    def parts(self) -> list[Part]:
        """The loss as parts, for tasks that share a goal."""
        distinct = {id(goal): goal for goal in self.goals}.values()
        if len(distinct) == 1:
            return [Part(None, self.goals[0].values, None, self.goals[0].weight)]
        return [
            Part(
                tuple(k for k, own in enumerate(self.goals) if own is goal),
                goal.values,
                goal.classes,
                goal.weight,
            )
            for goal in distinct
        ]

    @property
    def reduction(self) -> str | None:
        """How the loss makes one number of many."""
        return self.goals[0].reduction

    def by_sort(self, task_ids: Tensor | None, rows: int) -> list[tuple[Goal, np.ndarray]]:
        """A batch's rows by what their targets must be.

        Args:
            task_ids: integer array (B,) or (), or `None` without tasks.
            rows: int. B.

        Returns:
            A list of a goal for each sort of targets, with the numbers of the rows that have it.
        """
        goals, of_task = self._sorts
        if task_ids is None or len(goals) == 1:
            return [(goals[0], np.arange(rows))]
        of_row = np.broadcast_to(of_task[to_numpy(task_ids)], rows)
        return [(goals[i], np.flatnonzero(of_row == i)) for i in np.unique(of_row)]

    @functools.cached_property
    def _sorts(self) -> tuple[list[Goal], np.ndarray]:
        """A goal for each sort of targets, and which of them each task has."""
        found: dict[tuple[Kind, int | None, bool], Goal] = {}
        for goal in self.goals:
            found.setdefault(goal.sort, goal)
        places = {sort: i for i, sort in enumerate(found)}
        return list(found.values()), np.array([places[goal.sort] for goal in self.goals])

    def _keras_loss(self) -> Any:
        """The loss as Keras takes it: the plain one where that is right."""
        losses = {id(goal.loss): goal.loss for goal in self.goals}
        loss, weights = self.goals[0].loss, {goal.weight for goal in self.goals}
        # The logit of a class that a task has not is a probability of 0 for a softmax.
        is_sparse = type(loss) is keras.losses.SparseCategoricalCrossentropy
        is_plain = len(losses) == 1 and weights == {1.0} and (is_sparse or not self.setting.differ)
        if not is_plain:
            return OwnColumnsLoss(self.parts, self.reduction)
        # Each task reports it; or it may give less than a value for each target.
        is_reported = self.setting.names and loss is not None and is_per_target(loss)
        if is_reported or (self.setting.several_per_row and is_of_a_user(loss)):
            dtype = getattr(loss, "dtype", None)
            return OwnColumnsLoss([Part(None, self.goals[0].values)], self.reduction, dtype)
        return loss

    def metric_parts(self, function: Callable[..., Tensor], tasks: Sequence[int]) -> list[Part]:
        """A function of targets and outputs as parts: over each task's own columns.

        Args:
            function: targets and outputs to a value per row or token.
            tasks: those whose rows are measured.
        """
        if not self.setting.differ or not self.setting.gives_logits:
            return [Part(None, function)]
        by_classes: dict[int | None, list[int]] = {}
        for k, classes in enumerate(self.setting.of_tasks):
            if k in tasks:
                by_classes.setdefault(classes, []).append(k)
        return [Part(tuple(own), function, classes) for classes, own in by_classes.items()]

    def _of_own_columns(self, metric: Any) -> Any:
        """A metric of all rows over each row's own task's columns."""
        if not self.setting.differ or not self.setting.gives_logits:
            return metric
        function = metric_function(metric)
        if function is not None:
            tasks = range(len(self.setting.of_tasks))
            mean = OwnColumnsMean(self.metric_parts(function, tasks), metric_name(metric))
            return with_direction(mean, metric)
        if type(metric).__module__.split(".")[0] == "keras":
            raise ValueError(
                "`metrics` should be a dict of task name to list of metrics for one that is no "
                "mean over rows, as tasks have different numbers of classes. Received: a "
                f"{type(metric).__name__} for all tasks"
            )
        return metric

    def _asked(self, argument: str, given: Any, weighted: bool) -> list[Asked]:
        setting, goals = self.setting, self.goals
        kinds = {(goal.kind, goal.classes == 1) for goal in goals}
        if is_auto(given) and len(kinds) == 1:
            given = accuracy_of(*next(iter(kinds))) if setting.gives_logits else None
        if is_auto(given):
            given = {name: "auto" for name in setting.names}
        if not is_by_task(given):
            given = _listed(given)
            if given and len(kinds) > 1 and len({kind for kind, _ in kinds}) > 1:
                raise ValueError(
                    f"`{argument}` should be a dict of task name to list of metrics, as the tasks' "
                    f"losses take different targets. Received: {argument}={given!r}"
                )
            return [Asked(self._metric(m, goals[0]), weighted) for m in given]
        _check_names(argument, given, setting)
        found = []
        for k, (name, goal) in enumerate(zip(setting.names, goals, strict=True)):
            own = given.get(name)
            if is_auto(own):
                own = accuracy_of(goal.kind, goal.classes == 1)
            found += [Asked(self._metric(m, goal), weighted, k) for m in _listed(own)]
        return found

    def _metric(self, metric: Any, goal: Goal) -> Any:
        return metric_on_logits(metric, goal.kind) if self.setting.gives_logits else metric


def metric_function(metric: Any) -> Any:
    """The function of targets and outputs whose mean a metric is, or `None`."""
    if isinstance(metric, str) and metric.lower() in ACCURACY:
        return by_shapes(
            keras.metrics.binary_accuracy,
            keras.metrics.sparse_categorical_accuracy,
            keras.metrics.categorical_accuracy,
        )
    found = keras.metrics.get(metric)
    return mean_values(found) if isinstance(found, keras.Metric) else found


def metric_name(metric: Any) -> str:
    """The name that Keras gives a metric."""
    if isinstance(metric, str):
        return metric
    found = keras.metrics.get(metric)
    name = getattr(found, "name", None) or getattr(found, "__name__", type(found).__name__)
    return str(name)


def _goals(setting: Setting, loss: Any, loss_weights: Any) -> list[Goal]:
    """Each task's goal; one where there are no tasks."""
    classes = setting.of_tasks
    losses = _of_each("loss", loss, setting, "auto" if setting.gives_logits else None)
    weights = _of_each("loss_weights", loss_weights, setting, 1.0)
    reduction = _default_reduction(losses, setting)
    goals: list[Goal] = []
    # By the loss's identity: a user's own need not be hashable.
    resolved: dict[tuple[int, bool], Any] = {}
    shared: dict[tuple[int, int | None, float], Goal] = {}
    for k, (given, count, weight) in enumerate(zip(losses, classes, weights, strict=True)):
        of_one = count == 1
        if (id(given), of_one) not in resolved:
            found = default_loss(count, setting.ignored, reduction) if is_auto(given) else given
            if found is not None and setting.gives_logits:
                found = loss_on_logits(found)
            elif found is not None:
                found = keras.losses.get(found)
            resolved[id(given), of_one] = found
        found = resolved[id(given), of_one]
        number = 1.0 if weight is None else weight
        check_number("loss_weights", number, least=0.0)
        key = (id(found), count, float(number))
        if key not in shared:
            kind = Kind.UNKNOWN if found is None else kind_of(found, of_one)
            name = setting.names[k] if setting.names else None
            _check_kind(given, kind, count, setting, name)
            shared[key] = Goal(found, kind, count, float(number))
        goals.append(shared[key])
    if len({goal.reduction for goal in goals}) > 1:
        found = sorted({str(goal.reduction) for goal in goals})
        raise ValueError(
            "`loss` should have one `reduction` for all tasks. Received: losses with "
            f"reductions {found}"
        )
    return goals


def _default_reduction(losses: Sequence[Any], setting: Setting) -> str:
    """How the default makes one number of many: as losses beside it do that are means over all."""
    given = [loss for loss in losses if loss is not None and not is_auto(loss)]
    over_all = "sum_over_batch_size"
    if not given or not setting.gives_logits or setting.reduction == over_all:
        return setting.reduction
    found = {Goal(loss_on_logits(loss)).reduction for loss in given}
    return over_all if over_all in found else setting.reduction


def _check_kind(
    given: Any, kind: Kind, classes: int | None, setting: Setting, name: str | None
) -> None:
    if not setting.gives_logits:
        return
    of_task = "" if name is None else f" for task {name!r}"
    if classes == 1 and kind in (Kind.LABELS, Kind.DISTRIBUTIONS):
        raise ValueError(
            f"`loss` should be 'mse', or `keras.losses.BinaryCrossentropy(from_logits=True)`, "
            f"where there is one class: among one there is nothing to choose. Received{of_task}: "
            f"loss={given!r}"
        )
    if kind not in setting.kinds:
        wanted = sorted(k.value for k in setting.kinds if k is not Kind.UNKNOWN)
        raise ValueError(
            f"`loss` should take {' or '.join(wanted)}, such as "
            "`keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. Received"
            f"{of_task}: loss={given!r}"
        )


def _of_each(argument: str, given: Any, setting: Setting, default: Any) -> list[Any]:
    """What is given for each task: one entry where there are no tasks."""
    if isinstance(given, (list, tuple)) and len(given) == 1:  # As Keras takes it for one output.
        given = given[0]
    if isinstance(given, (list, tuple)):
        raise ValueError(
            f"`{argument}` should be one for the model's one output, or a dict by task. Received: "
            f"{argument}={given!r}"
        )
    if not is_by_task(given):
        return [given] * max(len(setting.names), 1)
    _check_names(argument, given, setting)
    missing = [name for name in setting.names if given.get(name, default) is None]
    if missing:
        raise ValueError(
            f"`{argument}` should have one for each task. Received: none for {missing}"
        )
    return [given.get(name, default) for name in setting.names]


def is_by_task(given: Any) -> bool:
    """Whether it is a dict by name, not the config of an object."""
    return isinstance(given, Mapping) and "class_name" not in given


def _check_names(argument: str, given: Mapping[str, Any], setting: Setting) -> None:
    known = set(setting.names)
    unknown = [name for name in given if name not in known]
    if unknown or not setting.names:
        raise ValueError(
            f"`{argument}` should be a dict by the names of tasks, "
            f"{received(list(setting.names))}, where it is a dict. Received: {argument} for "
            f"{received(list(given))}"
        )


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return keras.tree.flatten(given) if isinstance(given, (list, tuple)) else [given]
