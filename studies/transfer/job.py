"""What a method is given, and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studies.transfer.rows import Rows
from studies.transfer.tasks import Task
from studies.transfer.watch import Watch

# Of every head that is trained by steps: the methods' heads are alike.
HEAD_RATE = 0.01


@dataclasses.dataclass(frozen=True)
class Job:
    """One task to learn.

    Attributes:
        bench: the workbench.
        task: the task; its test rows are not for `train`.
        rows: those to train on.
        rate: float. The number that is tuned: a learning rate, or the head's decay.
        steps: int.
        seed: int, of the start and of the batches.
        virtual_tokens: int. L, of a prompt.
        batch_size: int. Of the training.
        source: folder of what the method's source training saved, where it has one.
        watch: what is to be told of the training's steps.
    """

    bench: Any
    task: Task
    rows: Rows
    rate: float
    steps: int
    seed: int
    virtual_tokens: int
    batch_size: int
    source: Path | None = None
    watch: Watch = dataclasses.field(default_factory=lambda: Watch(0))


@dataclasses.dataclass(frozen=True)
class SourceJob:
    """The source tasks to learn together, and the folder to save that in.

    Attributes:
        bench: the workbench.
        tasks: the source tasks.
        rate: float. The learning rate that is tuned.
        steps: int.
        seed: int.
        virtual_tokens: int. L.
        batch_size: int. Of the sources' training.
        folder: where to save what `Job.source` is to find.
        teacher_epochs: int. Of each teacher's own training, where the method has teachers.
        teachers: folder of teachers, which methods share.
        is_tested: whether this is the training whose test scores are shown.
    """

    bench: Any
    tasks: Sequence[Task]
    rate: float
    steps: int
    seed: int
    virtual_tokens: int
    batch_size: int
    folder: Path
    teacher_epochs: int
    teachers: Path
    is_tested: bool = False


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came of a job.

    Attributes:
        predict: function of rows (and of the task's place, of a source job) that gives labels (N,).
        parameters: int. How many numbers were trained.
        notes: what else the log is to say.
    """

    predict: Callable[..., np.ndarray]
    parameters: int
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to learn a task.

    Attributes:
        name: string, in the log and on the command line.
        label: string, on the page.
        about: string, what it does.
        tuned: string, what `rates` are.
        rates: the grid to begin with: four numbers or more, a factor of about √10 apart, or of 10
            for the head's decay; one where there is nothing to tune. The second stands where
            nothing was tuned.
        train: function of a `Job`.
        train_source: function of a `SourceJob`, or `None` where nothing is transferred.
        prepare: function of a `SourceJob`: what must be there before, and is not timed with it, or
            `None`.
        missing: function that says what is not there to run it; an empty string where all is.
        sources_of: another method, where its trained sources are used.
        tuned_as: another method, where the two are one on the tasks that settings are chosen on, or
            as good as one.
        source_tuned_as: another method, whose rate of source training it takes.
        virtual_tokens: int. L, where it is not that of the others.
        times: int. How many times the others' steps it has on a target.
        source_times: int. How many times the others' steps, and rows of each source, its sources
            have.
    """

    name: str
    label: str
    about: str
    tuned: str
    rates: tuple[float, ...]
    train: Callable[[Job], Trained]
    train_source: Callable[[SourceJob], Trained] | None = None
    prepare: Callable[[SourceJob], Any] | None = None
    missing: Callable[[], str] = str
    sources_of: Method | None = None
    tuned_as: Method | None = None
    source_tuned_as: Method | None = None
    virtual_tokens: int | None = None
    times: int = 1
    source_times: int = 1

    @property
    def source_method(self) -> Method:
        """The method that trains its sources."""
        return self.sources_of or self

    @property
    def tuned_method(self) -> Method:
        """The method whose runs choose its rate on a target."""
        return self.tuned_as or self

    def longer(self, times: int) -> Method:
        """The same with more steps on a target, at the same rate and from the same sources."""
        return dataclasses.replace(
            self,
            name=f"{self.name}_{times}",
            label=f"{self.label}, {times} × the steps",
            about=f"{self.label}, with rates that fall {times} times as slowly",
            train_source=None,
            sources_of=self.source_method if self.source_method.train_source else None,
            tuned_as=self.tuned_method,
            times=times,
        )

    def with_more_sources(self, times: int) -> Method:
        """The same from sources with more steps and rows, at the same rates."""
        trained = self.source_method
        if trained is not self:
            sources = trained.with_more_sources(times)
            return self._from_more(times, sources_of=sources)
        return self._from_more(times, source_tuned_as=self, source_times=times)

    def _from_more(self, times: int, **changes: Any) -> Method:
        return dataclasses.replace(
            self,
            name=f"{self.name}_sources_{times}",
            label=f"{self.label}, {times} × the source steps",
            about=f"{self.label}, the sources with {times} times as many steps and rows",
            tuned_as=self.tuned_method,
            **changes,
        )


def decay(rate: float, steps: int) -> Any:
    """Every method's schedule: from `rate` down to 0 in a line."""
    import keras

    return keras.optimizers.schedules.PolynomialDecay(rate, steps, end_learning_rate=0.0)
