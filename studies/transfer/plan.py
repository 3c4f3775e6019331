"""Which runs there are, each as the inputs of a line of the log."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
from collections.abc import Iterator, Sequence

from studies.transfer import data
from studies.transfer.job import Method
from studies.transfer.log import Entry, key
from studies.transfer.summary import rows_tuned_for

FULL = "full"
STAGES = ("tune", "sources", "targets", "render")
# Source tasks that stand for targets while settings are chosen: none of them shares texts with what
# is left of the sources, nor are they targets.
PSEUDO_TARGETS = ("trec", "qqp")
_TUNING, _CHOOSING = "tune sources", "tune"


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the methods have alike; by default what two cores do in an hour or two for one `shots`.

    Attributes:
        sources: names of the source tasks.
        pseudo_targets: those of them that settings are chosen on.
        source_steps: int, of the training of all sources together.
        tuning_steps: int, of the same while its learning rate is chosen, without pseudo-targets.
        teacher_epochs: int, of each teacher.
        source_rows: int, at most so many training rows of a source; `None` for all.
        steps: dict from the rows per class, or "full", to the steps on a target.
        tuning_seeds: how many draws of few rows of a pseudo-target.
    """

    sources: tuple[str, ...] = data.SOURCES
    pseudo_targets: tuple[str, ...] = PSEUDO_TARGETS
    source_steps: int = 300
    tuning_steps: int = 100
    teacher_epochs: int = 2
    source_rows: int | None = 600
    steps: tuple[tuple[int | str, int], ...] = ((4, 30), (16, 30), (32, 30), (FULL, 100))
    tuning_seeds: int = 1

    def steps_for(self, shots: int | str) -> int:
        """The steps on a target."""
        known = dict(self.steps)
        # Another number of rows per class: as for the most that is known.
        return known.get(shots, max(n for k, n in self.steps if k != FULL))

    @property
    def left_sources(self) -> tuple[str, ...]:
        """The sources without the pseudo-targets."""
        return tuple(name for name in self.sources if name not in self.pseudo_targets)


# A budget for larger machines.
LONG = Budget(
    pseudo_targets=("trec", "ag_news", "qqp"),
    source_steps=1500,
    tuning_steps=400,
    teacher_epochs=3,
    source_rows=None,
    steps=((4, 60), (16, 60), (32, 60), (FULL, 400)),
    tuning_seeds=2,
)
QUICK = Budget(
    sources=("sst2", "trec"),
    pseudo_targets=(),
    source_steps=30,
    tuning_steps=10,
    teacher_epochs=2,
    source_rows=320,
    steps=((4, 12), (16, 12), (32, 12), (FULL, 24)),
)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    budget: Budget
    methods: Sequence[Method]
    targets: Sequence[str]
    shots: Sequence[int | str]
    seeds: int
    full_seeds: int
    source_seeds: int
    # Settings that all runs share: test rows, virtual tokens, rows of a batch.
    settings: Entry


def tuning_runs(asked: Asked) -> Iterator[Entry]:
    """Sources without the pseudo-targets, at every rate that is to be compared."""
    for method in _source_methods(asked) if asked.budget.pseudo_targets else []:
        for rate in method.rates:
            yield _source_run(asked, method, rate, _TUNING)


def choosing_runs(asked: Asked, entries: Sequence[Entry]) -> Iterator[Entry]:
    """Pseudo-targets, at every rate, from the best of the sources without them."""
    budget = asked.budget
    methods = dict.fromkeys(method.tuned_method for method in asked.methods)
    for shots in asked.shots:
        for method in methods:
            source = _source_run(asked, method, source_rate(asked, method, entries), _TUNING)
            for rate in method.rates:
                for task in budget.pseudo_targets:
                    few = 1 if shots == FULL else budget.tuning_seeds
                    for seed in range(few):
                        yield _run(asked, _CHOOSING, method, task, shots, seed, rate, source)


def source_runs(asked: Asked, entries: Sequence[Entry]) -> Iterator[Entry]:
    """All sources, at the rate that was best without the pseudo-targets; seed by seed.

    Targets start from those of seed 0; the others tell how much of a difference is chance.
    """
    for seed in range(asked.source_seeds):
        for method in _source_methods(asked):
            rate = source_rate(asked, method, entries)
            yield {**_source_run(asked, method, rate, "sources"), "seed": seed}


def target_runs(asked: Asked, entries: Sequence[Entry]) -> Iterator[Entry]:
    """The targets, at each method's best rate; seed by seed, so that early ends compare."""
    sources = {
        m.name: _source_run(asked, m, source_rate(asked, m, entries), "sources")
        for m in asked.methods
    }
    for shots in asked.shots:
        rates = {m.name: target_rate(asked, m, shots, entries) for m in asked.methods}
        for seed in range(asked.full_seeds if shots == FULL else asked.seeds):
            for task in asked.targets:
                for m in asked.methods:
                    source = sources[m.name]
                    yield _run(asked, "targets", m, task, shots, seed, rates[m.name], source)


def possible_sources(asked: Asked) -> dict[str, Entry]:
    """Every source run that another run may ask for, by the name of its folder."""
    runs = [
        _source_run(asked, method, rate, stage)
        for method in _source_methods(asked)
        for rate in method.rates
        for stage in (_TUNING, "sources")
    ]
    return {folder_name(run): run for run in runs}


def source_rate(asked: Asked, method: Method, entries: Sequence[Entry]) -> float:
    """The rate with the best mean validation score of the sources left; the second untuned."""
    rates = method.source_method.rates
    runs = {rate: [_source_run(asked, method, rate, _TUNING)] for rate in rates}
    return _best(runs, entries) or rates[1]


def target_rate(asked: Asked, method: Method, shots: int | str, entries: Sequence[Entry]) -> float:
    """The rate with the best mean validation score of the pseudo-targets; the second untuned.

    Rows per class that were not tuned have the rate of the most below them that were.
    """
    method = method.tuned_method
    for at in rows_tuned_for(entries, method.name, shots):
        only = dataclasses.replace(asked, methods=[method], shots=[at])
        runs: dict[float, list[Entry]] = {rate: [] for rate in method.rates}
        for run in choosing_runs(only, entries):
            runs[run["settings"]["rate"]].append(run)
        best = _best(runs, entries)
        if best is not None:
            return best
    return method.rates[1]


def folder_name(source: Entry) -> str:
    """Of what a source run saves: another one for other inputs."""
    digest = hashlib.sha256(key(source).encode()).hexdigest()[:12]
    return f"{source['method']}-{digest}"


def _best(runs: dict[float, list[Entry]], entries: Sequence[Entry]) -> float | None:
    """The rate whose runs score best; `None` where runs of any are missing."""
    scores = {key(entry): entry["score"] for entry in entries if "score" in entry}
    if not all(own and all(key(run) in scores for run in own) for own in runs.values()):
        return None
    return max(runs, key=lambda rate: statistics.mean(scores[key(run)] for run in runs[rate]))


def _source_methods(asked: Asked) -> list[Method]:
    """The methods whose sources are asked for, each once."""
    methods = dict.fromkeys(method.source_method for method in asked.methods)
    return [method for method in methods if method.train_source]


def _source_run(asked: Asked, method: Method, rate: float, stage: str) -> Entry:
    method, budget, tuning = method.source_method, asked.budget, stage == _TUNING
    settings = {
        "rate": rate,
        "steps": budget.tuning_steps if tuning else budget.source_steps,
        "tasks": list(budget.left_sources if tuning else budget.sources),
        "rows": budget.source_rows,
        **({"teacher_epochs": budget.teacher_epochs} if method.prepare else {}),
        **asked.settings,
    }
    return _inputs(stage, method, "sources", FULL, 0, settings)


def _run(
    asked: Asked,
    stage: str,
    method: Method,
    task: str,
    shots: int | str,
    seed: int,
    rate: float,
    source: Entry,
) -> Entry:
    settings = {
        "rate": rate,
        "steps": asked.budget.steps_for(shots),
        **({"source": folder_name(source)} if method.source_method.train_source else {}),
        **asked.settings,
    }
    return _inputs(stage, method, task, shots, seed, settings)


def _inputs(
    stage: str, method: Method, task: str, shots: int | str, seed: int, settings: Entry
) -> Entry:
    return {
        "stage": stage, "method": method.name, "task": task, "shots": shots, "seed": seed,
        "settings": settings,
    }  # fmt: skip
