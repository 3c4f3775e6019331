"""Which runs there are, each as the inputs of a line of the log."""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
from collections.abc import Callable, Iterator, Sequence

from studies.transfer.grid import beside, best, grown, middle
from studies.transfer.job import Method
from studies.transfer.log import Entry, key
from studies.transfer.summary import rows_tuned_for

FULL = "full"
STAGES = ("tune", "sources", "targets", "render")
_TUNING, _CHOOSING = "tune sources", "tune"


@dataclasses.dataclass(frozen=True)
class Budget:
    """What the methods have alike.

    Attributes:
        sources: names of the source tasks.
        pseudo_targets: those of them that stand for targets while settings are chosen. None shares
            texts with what is left of the sources.
        source_steps: int, of the training of all sources together.
        tuning_steps: int, of the same while its learning rate is chosen, without pseudo-targets.
        tuning_sources: names of the sources that it is chosen on; `None` for all but the
            pseudo-targets.
        places_below: int. The rate of the whole training is so many places of the grid below the
            one that was best for fewer steps: what a rate moves grows with the steps.
        teacher_epochs: int, of each teacher.
        source_rows: int, at most so many training rows of a source; `None` for all.
        steps: dict from the rows per class, or "full", to the steps on a target.
        tuning_seeds: how many draws of few rows of a pseudo-target.
        tuned_shots: the rows per class that rates are chosen at; `None` for all that are asked for.
        batch: int, rows of a batch on a target.
        source_batch: int, rows of a batch of the sources.
        virtual_tokens: int. L.
        watched_rows: int, test rows that are scored on the way; 0 for none.
        test_rows: int, at most so many of a task.
        tuning_rows: int, at most so many validation rows, by which rates are chosen.
        source_tokens: int, of a source's training rows, answers included; longer ones are left out.
            `None` leaves none out.
    """

    sources: tuple[str, ...]
    pseudo_targets: tuple[str, ...]
    source_steps: int
    tuning_steps: int
    teacher_epochs: int
    source_rows: int | None
    steps: tuple[tuple[int | str, int], ...]
    tuning_seeds: int = 1
    tuning_sources: tuple[str, ...] | None = None
    places_below: int = 0
    tuned_shots: tuple[int | str, ...] | None = None
    batch: int = 32
    source_batch: int = 32
    virtual_tokens: int = 16
    watched_rows: int = 0
    test_rows: int = 300
    tuning_rows: int = 300
    source_tokens: int | None = None

    def steps_for(self, shots: int | str) -> int:
        """The steps on a target."""
        known = dict(self.steps)
        # Another number of rows per class: as for the most that is known.
        return known.get(shots, max(n for k, n in self.steps if k != FULL))

    @property
    def left_sources(self) -> tuple[str, ...]:
        """The sources that rates are chosen on: none of them is a pseudo-target."""
        if self.tuning_sources is not None:
            return self.tuning_sources
        return tuple(name for name in self.sources if name not in self.pseudo_targets)


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


class Known:
    """Finished runs, and the score of each by its inputs."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.scores = {key(entry): entry["score"] for entry in entries if "score" in entry}

    @classmethod
    def of(cls, entries: Entries) -> Known:
        """Of the log's lines, or of what was made of them."""
        return entries if isinstance(entries, Known) else cls(entries)


Entries = Sequence[Entry] | Known


def tuning_runs(asked: Asked, entries: Entries) -> Iterator[Entry]:
    """Sources without the pseudo-targets, at every rate that is to be compared."""
    entries = Known.of(entries)
    for method in _source_methods(asked) if asked.budget.pseudo_targets else []:
        if method.source_tuned_as is not None:
            # Nothing to compare, but pseudo-targets start from it, where it has its own.
            is_tuned = method.tuned_as is None
            if is_tuned and _tuned_source_rate(asked, method.source_tuned_as, entries) is not None:
                yield _source_run(asked, method, source_rate(asked, method, entries), _TUNING)
            continue
        for rate in _source_grid(asked, method, entries):
            yield _source_run(asked, method, rate, _TUNING)


def choosing_runs(asked: Asked, entries: Entries) -> Iterator[Entry]:
    """Pseudo-targets, at every rate, from the best of the sources without them."""
    entries = Known.of(entries)
    tuned = asked.budget.tuned_shots
    methods = dict.fromkeys(method.tuned_method for method in asked.methods)
    for shots in asked.shots:
        for method in methods if tuned is None or shots in tuned else []:
            if len(method.rates) > 1:
                for rate in _grid(asked, method, shots, entries):
                    yield from _choosing(asked, method, shots, rate, entries)


def _choosing(
    asked: Asked, method: Method, shots: int | str, rate: float, entries: Entries
) -> Iterator[Entry]:
    """A rate's runs."""
    budget = asked.budget
    source = _source_run(asked, method, source_rate(asked, method, entries), _TUNING)
    for task in budget.pseudo_targets:
        for seed in range(1 if shots == FULL else budget.tuning_seeds):
            yield _run(asked, _CHOOSING, method, task, shots, seed, rate, source)


def source_runs(asked: Asked, entries: Entries) -> Iterator[Entry]:
    """All sources, at the rate that was best without the pseudo-targets; seed by seed.

    Targets start from those of seed 0; the others tell how much of a difference is chance.
    """
    entries = Known.of(entries)
    for seed in range(asked.source_seeds):
        for method in _source_methods(asked):
            rate = source_rate(asked, method, entries)
            yield {**_source_run(asked, method, rate, "sources"), "seed": seed}


def target_runs(asked: Asked, entries: Entries) -> Iterator[Entry]:
    """The targets, at each method's best rate; seed by seed, so that early ends compare."""
    entries = Known.of(entries)
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


def possible_sources(asked: Asked, entries: Entries) -> dict[str, Entry]:
    """Every source run that another run may ask for, by the name of its folder."""
    entries = Known.of(entries)
    runs = [
        _source_run(asked, method, rate, stage)
        for method in _source_methods(asked)
        for rate in _source_grid(asked, method.source_tuned_as or method, entries)
        for stage in (_TUNING, "sources")
    ]
    return {folder_name(run): run for run in runs}


def source_rate(asked: Asked, method: Method, entries: Entries) -> float:
    """The rate with the best mean validation score of the sources left; the second untuned."""
    entries = Known.of(entries)
    method = method.source_method
    found = _tuned_source_rate(asked, method.source_tuned_as or method, entries)
    return found or middle(method.rates)


def target_rate(asked: Asked, method: Method, shots: int | str, entries: Entries) -> float:
    """The rate with the best mean validation score of the pseudo-targets; the second untuned.

    Rows per class that were not tuned have the rate of the most below them that were, or else of
    the fewest above.
    """
    entries = Known.of(entries)
    method = method.tuned_method
    for at in rows_tuned_for(entries.entries, method.name, shots):
        found = best(_grid(asked, method, at, entries), _chosen_scores(asked, method, at, entries))
        if found is not None:
            return found
    return middle(method.rates)


def _grid(asked: Asked, method: Method, shots: int | str, entries: Entries) -> tuple[float, ...]:
    return grown(method.rates, _chosen_scores(asked, method, shots, entries))


def _tuned_source_rate(asked: Asked, method: Method, entries: Entries) -> float | None:
    return best(_source_grid(asked, method, entries), _source_scores(asked, method, entries))


def _source_grid(asked: Asked, method: Method, entries: Entries) -> tuple[float, ...]:
    return grown(method.rates, _source_scores(asked, method, entries))


def _source_scores(
    asked: Asked, method: Method, entries: Entries
) -> Callable[[float], float | None]:
    return _mean_scores(lambda rate: [_source_run(asked, method, rate, _TUNING)], entries)


def _chosen_scores(
    asked: Asked, method: Method, shots: int | str, entries: Entries
) -> Callable[[float], float | None]:
    return _mean_scores(lambda rate: list(_choosing(asked, method, shots, rate, entries)), entries)


def _mean_scores(
    runs_of: Callable[[float], list[Entry]], entries: Entries
) -> Callable[[float], float | None]:
    """A rate's mean score; `None` where a run is missing, or there are none."""
    scores = Known.of(entries).scores

    def mean(rate: float) -> float | None:
        found = [scores.get(key(run)) for run in runs_of(rate)]
        known = [score for score in found if score is not None]
        return statistics.mean(known) if known and len(known) == len(found) else None

    return mean


def folder_name(source: Entry) -> str:
    """Of what a source run saves: another one for other inputs."""
    digest = hashlib.sha256(key(source).encode()).hexdigest()[:12]
    return f"{source['method']}-{digest}"


def _source_methods(asked: Asked) -> list[Method]:
    """The methods whose sources are asked for, each once."""
    methods = dict.fromkeys(method.source_method for method in asked.methods)
    return [method for method in methods if method.train_source]


def _source_run(asked: Asked, method: Method, rate: float, stage: str) -> Entry:
    method, budget, tuning = method.source_method, asked.budget, stage == _TUNING
    for _ in range(budget.places_below if method.train_source and not tuning else 0):
        rate = beside(rate, up=False)
    # Rates are chosen from what is alike for all.
    times = 1 if tuning else method.source_times
    settings = {
        "rate": rate,
        "steps": budget.tuning_steps if tuning else budget.source_steps * times,
        "tasks": list(budget.left_sources if tuning else budget.sources),
        "rows": budget.source_rows and budget.source_rows * times,
        **({} if budget.source_tokens is None else {"row_tokens": budget.source_tokens}),
        **({"teacher_epochs": budget.teacher_epochs} if method.prepare else {}),
        **_shared(asked, method),
        "batch": budget.source_batch,
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
        **({"times": method.times} if method.times > 1 else {}),
        **({"source": folder_name(source)} if method.source_method.train_source else {}),
        **_shared(asked, method),
    }
    return _inputs(stage, method, task, shots, seed, settings)


def _shared(asked: Asked, method: Method) -> Entry:
    """The settings that all runs share, but for a method's own number of virtual tokens."""
    own = {"virtual_tokens": method.virtual_tokens} if method.virtual_tokens else {}
    return {**asked.settings, **own}


def _inputs(
    stage: str, method: Method, task: str, shots: int | str, seed: int, settings: Entry
) -> Entry:
    return {
        "stage": stage, "method": method.name, "task": task, "shots": shots, "seed": seed,
        "settings": settings,
    }  # fmt: skip
