"""One run: training, and what came of it."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

from studies.transfer.data import stratified
from studies.transfer.job import Job, Method, SourceJob
from studies.transfer.log import Entry
from studies.transfer.methods import METHODS
from studies.transfer.plan import FULL, folder_name
from studies.transfer.rows import Rows
from studies.transfer.scores import accuracy, score
from studies.transfer.workbench import Task, Workbench


def execute(run: Entry, bench: Workbench, work: Path, sources: Mapping[str, Entry]) -> Entry:
    """The run's line of the log.

    Args:
        run: its inputs.
        bench: the workbench.
        work: folder where source runs keep what they trained.
        sources: the source runs that may be asked for, by the name of their folder.
    """
    began = time.perf_counter()
    method = METHODS[run["method"]]
    if run["task"] == "sources":
        results = train_source(run, method, bench, work)
    else:
        name = run["settings"].get("source")
        if name and not (work / name).is_dir():  # Not trained yet, on another machine, or gone.
            train_source(sources[name], method.source_method, bench, work)
        results = train_target(run, method, bench, name and work / name)
    return {**run, **results, "wall": round(time.perf_counter() - began, 2)}


def train_source(run: Entry, method: Method, bench: Workbench, work: Path) -> Entry:
    """Trains the sources together, and scores each of them."""
    assert method.train_source is not None
    settings, folder = run["settings"], work / folder_name(run)
    # Renamed when it is whole: a folder that is there can be trusted.
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    limit, epochs = settings["rows"], settings.get("teacher_epochs", 0)
    tasks = [_with_rows(bench.task(name), limit) for name in settings["tasks"]]
    job = SourceJob(
        bench, tasks, settings["rate"], settings["steps"], run["seed"], unfinished, epochs,
        work / f"teachers-{bench.num_virtual_tokens}-{epochs}-{limit or 'all'}",
    )  # fmt: skip
    results: Entry = {}
    if method.prepare is not None:
        began = time.perf_counter()
        method.prepare(job)
        results["teacher_seconds"] = round(time.perf_counter() - began, 2)
    began = time.perf_counter()
    trained = method.train_source(job)
    results |= {
        "seconds": round(time.perf_counter() - began, 2), "parameters": trained.parameters
    }  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    # Tests only of the training whose numbers are shown.
    tested = run["stage"] == "sources"
    scores = {}
    for place, task in enumerate(tasks):
        rows = task.test if tested else task.validation
        scores[task.name] = score(task.name, rows.y, trained.predict(rows, place))
    return {**results, "scores": scores, "score": statistics.mean(scores.values())}


def _with_rows(task: Task, limit: int | None) -> Task:
    """The task with at most so many training rows, always the same."""
    if limit is None:
        return task
    chosen = stratified(task.train.y, limit, seed=0)
    return dataclasses.replace(task, train=Rows(task.train.split, task.train.index[chosen]))


def train_target(run: Entry, method: Method, bench: Workbench, source: Path | None) -> Entry:
    """Trains one task, and scores it: a target's test rows, a pseudo-target's validation rows."""
    settings, task = run["settings"], bench.task(run["task"])
    rows = training_rows(task, run["shots"], run["seed"])
    began = time.perf_counter()
    trained = method.train(
        Job(bench, task, rows, settings["rate"], settings["steps"], run["seed"], source)
    )
    seconds = time.perf_counter() - began
    scored = task.test if run["stage"] == "targets" else task.validation
    predicted = trained.predict(scored)
    return {
        "score": score(task.name, scored.y, predicted),
        "accuracy": accuracy(scored.y, predicted),
        "parameters": trained.parameters,
        "seconds": round(seconds, 2),
        "rows": len(rows),
        "scored_rows": len(scored),
    }


def training_rows(task: Task, shots: int | str, seed: int) -> Rows:
    """All rows, or a few of each class that follow from the seed alone."""
    if shots == FULL:
        return task.train
    assert isinstance(shots, int)
    # Keras fixes its backend at import; what only reads the plan needs none.
    from keras_mpt.data.few_shot import few_shot

    index, _ = few_shot(task.train.index, task.train.y, shots, seed)
    return Rows(task.train.split, index)
