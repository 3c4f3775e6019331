"""One run: training, and what came of it."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from studies.transfer.claims import alone
from studies.transfer.data import stratified
from studies.transfer.job import Job, Method, SourceJob
from studies.transfer.log import Entry, steps_of
from studies.transfer.plan import FULL, folder_name
from studies.transfer.rows import Rows
from studies.transfer.tasks import Task, some
from studies.transfer.watch import Watch


def execute(
    run: Entry, methods: Mapping[str, Method], bench: Any, work: Path, sources: Mapping[str, Entry]
) -> Entry:
    """The run's line of the log.

    Args:
        run: its inputs.
        methods: the part's methods.
        bench: the part's workbench.
        work: folder where source runs keep what they trained.
        sources: the source runs that may be asked for, by the name of their folder.
    """
    began = time.perf_counter()
    method = methods[run["method"]]
    if run["task"] == "sources":
        results = train_source(run, method, bench, work)
    else:
        name = run["settings"].get("source")
        if name:
            with alone(work / "claims", name):
                if not (work / name).is_dir():  # Not trained yet, on another machine, or gone.
                    train_source(sources[name], method.source_method, bench, work)
        results = train_target(run, method, bench, name and work / name)
    return {**run, **results, "wall": round(time.perf_counter() - began, 2)}


def train_source(run: Entry, method: Method, bench: Any, work: Path) -> Entry:
    """Trains the sources together, and scores each of them."""
    assert method.train_source is not None
    settings, folder = run["settings"], work / folder_name(run)
    # Renamed when it is whole: a folder that is there can be trusted.
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    limit, epochs = settings["rows"], settings.get("teacher_epochs", 0)
    longest = settings.get("row_tokens")
    tasks = [_with_rows(bench.task(name), limit, longest) for name in settings["tasks"]]
    tokens, batch = settings["virtual_tokens"], settings["batch"]
    part = settings.get("part", "heads")
    job = SourceJob(
        bench, tasks, settings["rate"], settings["steps"], run["seed"], tokens, batch, unfinished,
        epochs, work / f"teachers-{part}-{tokens}-{epochs}-{limit or 'all'}-{longest}-{batch}",
        run["stage"] == "sources",
    )  # fmt: skip
    results: Entry = {}
    if method.prepare is not None:
        began = time.perf_counter()
        with alone(work / "claims", job.teachers.name):
            method.prepare(job)
        results["teacher_seconds"] = round(time.perf_counter() - began, 2)
    began = time.perf_counter()
    trained = method.train_source(job)
    results |= {
        "seconds": round(time.perf_counter() - began, 2), "parameters": trained.parameters
    }  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    measured = {}
    for place, task in enumerate(tasks):
        if job.is_tested or not task.is_text:
            rows = task.test if job.is_tested else to_choose_by(task, settings)
            measured[task.name] = task.measure(rows.y, trained.predict(rows, place))
    scores = {name: found["score"] for name, found in measured.items()}
    bleu = {name: found["bleu"] for name, found in measured.items() if "bleu" in found}
    # Of texts it is seldom that one is met word for word.
    mean = statistics.mean(scores[task.name] for task in tasks if not task.is_text)
    texts = {"bleu": bleu} if bleu else {}
    return {**results, **trained.notes, "scores": scores, **texts, "score": mean}


def _with_rows(task: Task, limit: int | None, longest: int | None) -> Task:
    """The task with at most so many training rows, of at most so many tokens; always the same."""
    rows = task.train
    if longest is not None:
        lengths = rows.x["padding_mask"].sum(axis=1)
        answers = [0 if task.answers is None else len(task.answers[label]) for label in rows.y]
        rows = Rows(rows.split, rows.index[lengths + np.array(answers) <= longest])
    if limit is not None:
        labels = np.zeros_like(rows.y) if task.is_text else rows.y
        rows = Rows(rows.split, rows.index[stratified(labels, limit, seed=0)])
    return dataclasses.replace(task, train=rows)


def to_choose_by(task: Task, settings: Entry) -> Rows:
    """The validation rows, or some of them."""
    rows = task.validation
    return Rows(rows.split, rows.index[some(rows, settings.get("tuning_rows", len(rows)))])


def train_target(run: Entry, method: Method, bench: Any, source: Path | None) -> Entry:
    """Trains one task, and scores it: a target's test rows, a pseudo-target's validation rows."""
    settings, task = run["settings"], bench.task(run["task"])
    rows = training_rows(task, run["shots"], run["seed"])
    scored = task.test if run["stage"] == "targets" else to_choose_by(task, settings)
    watched = _watched(run, task, scored)

    def measure(predict: Any) -> float:
        own = Rows(scored.split, scored.index[watched])
        return task.measure(own.y, predict(own))["score"]

    steps = steps_of(run)
    watch = Watch(steps, measure if len(watched) else None)
    began = time.perf_counter()
    trained = method.train(
        Job(
            bench,
            task,
            rows,
            settings["rate"],
            steps,
            run["seed"],
            settings["virtual_tokens"],
            settings["batch"],
            source,
            watch,
        )  # fmt: skip
    )
    seconds = time.perf_counter() - began - watch.seconds
    predicted = trained.predict(scored)
    found = task.measure(scored.y, predicted)
    if len(watched):
        own = Rows(scored.split, scored.index[watched])
        watch.scores[steps] = task.measure(own.y, predicted[watched])["score"]
    return {
        **found,
        **trained.notes,
        **({"curve": _pairs(watch.scores)} if watch.scores else {}),
        **({"losses": _pairs(watch.losses)} if watch.losses else {}),
        "parameters": trained.parameters,
        "bytes": 4 * trained.parameters,
        "seconds": round(seconds, 2),
        "rows": len(rows),
        "scored_rows": len(scored),
    }


def _watched(run: Entry, task: Task, scored: Rows) -> np.ndarray:
    """The places of the rows that are scored on the way: of a target with classes alone."""
    count = run["settings"].get("watched_rows", 0)
    if not count or task.is_text or run["stage"] != "targets":
        return np.array([], int)
    return some(scored, count)


def _pairs(found: Mapping[int, float]) -> list[list[float]]:
    return [[step, round(value, 6)] for step, value in sorted(found.items())]


def training_rows(task: Task, shots: int | str, seed: int) -> Rows:
    """All rows, or a few of each class that follow from the seed alone."""
    if shots == FULL:
        return task.train
    assert isinstance(shots, int)
    # Keras fixes its backend at import; what only reads the plan needs none.
    from keras_mpt.data.few_shot import few_shot

    # Free text has no classes: as many rows as of one of them.
    labels = np.zeros_like(task.train.y) if task.is_text else task.train.y
    index, _ = few_shot(task.train.index, labels, shots, seed)
    return Rows(task.train.split, index)
