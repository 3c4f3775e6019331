"""The command line with a method that needs no model."""

import dataclasses
import json

import numpy as np
import pytest

from studies.transfer import command, running
from studies.transfer.claims import claim
from studies.transfer.command import RUNS, main, parse, waves_of
from studies.transfer.heads.workbench import Workbench
from studies.transfer.job import Trained
from studies.transfer.log import Log
from studies.transfer.parts import PARTS
from studies.transfer.plan import FULL
from studies.transfer.rows import Split
from studies.transfer.running import seconds_left

from .fakes import run

HEADS = PARTS["heads"]
METHODS = HEADS.methods
KNOWN = ["head", "peft_mpt"]


@pytest.fixture
def folder(tmp_path):
    """Tasks whose text is the label."""
    for name in (*HEADS.budget.sources, *HEADS.targets):
        task = tmp_path / "data" / name
        task.mkdir(parents=True)
        rows = "".join(f"{i % 2}\t{i % 2}\n" for i in range(40))
        for part in ("train", "test"):
            (task / f"{part}.tsv").write_text("text\tlabel\n" + rows)
        (task / "labels.json").write_text(json.dumps({"0": "no", "1": "yes"}))
    return tmp_path / "data"


@pytest.fixture
def trained(monkeypatch):
    """Two fake methods, one of which transfers; gives the list of what they trained."""
    calls = []

    def tokenize(self, texts):
        ids = np.array([[int(text)] for text in texts.texts[0]])
        return Split({"token_ids": ids, "padding_mask": np.ones_like(ids)}, texts.labels)

    def train(job):
        calls.append((job.task.name, job.seed, len(job.rows), job.source and job.source.is_dir()))
        return Trained(lambda rows: rows.x["token_ids"][:, 0], 7)

    def train_source(job):
        calls.append(("sources", job.seed, len(job.tasks), None))
        job.folder.mkdir(parents=True)
        return Trained(lambda rows, task: rows.x["token_ids"][:, 0], 9)

    monkeypatch.setattr(Workbench, "_tokenize", tokenize)
    fake = {
        "head": dataclasses.replace(METHODS["head"], train=train),
        "peft_mpt": dataclasses.replace(
            METHODS["peft_mpt"], train=train, train_source=train_source
        ),
    }
    heads = dataclasses.replace(HEADS, methods={**METHODS, **fake})
    monkeypatch.setattr(command, "PARTS", {**PARTS, "heads": heads})
    return calls


def arguments(folder, tmp_path, *more):
    return ["--quick", "--part", "heads", "--data", str(folder), "--folder", str(tmp_path / "out"),
            "--work", str(tmp_path / "work"), "--methods", *KNOWN, *more]  # fmt: skip


def test_what_was_run_is_not_run_again(folder, trained, tmp_path):
    assert main(arguments(folder, tmp_path)) == 0
    # One training of the sources, and two targets of both methods.
    assert len(trained) == 1 + 2 * 2
    assert trained[0][0] == "sources"
    assert {call[3] for call in trained[1:]} == {None, True}
    log = (tmp_path / "out" / RUNS).read_text()
    entry = json.loads(log.splitlines()[-1])
    assert entry["score"] == 1.0 and entry["rows"] == 32 and entry["parameters"] == 7
    assert "| 100.0 | 100.0 |" in (tmp_path / "out" / "README.md").read_text()

    trained.clear()
    assert main(arguments(folder, tmp_path)) == 0
    assert trained == []
    assert (tmp_path / "out" / RUNS).read_text() == log
    # One seed more is run alone.
    assert main(arguments(folder, tmp_path, "--seeds", "2")) == 0
    assert len(trained) == 2 * 2


def test_a_killed_run_goes_on(folder, trained, tmp_path, monkeypatch):
    real, left = running.execute, [3]

    def killed(*given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(running, "execute", killed)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(folder, tmp_path))
    left[0] = 100
    main(arguments(folder, tmp_path))
    assert left[0] == 100 - (5 - 3)
    assert len(trained) == len(set(trained)) == 5


def test_sources_that_are_gone_are_trained_anew(folder, trained, tmp_path):
    main(arguments(folder, tmp_path))
    for folders in ("work", "out/sources"):  # Those that are kept beside the log too.
        for saved in (tmp_path / folders).glob("peft_mpt-*"):
            saved.rmdir()
    trained.clear()
    main(arguments(folder, tmp_path, "--seeds", "3"))
    assert [call[0] for call in trained].count("sources") == 1


def test_render_runs_nothing(trained, tmp_path):
    assert main(["--render", "--folder", str(tmp_path)]) == 0
    assert trained == []
    assert "No run is in the log yet" in (tmp_path / "README.md").read_text()


def test_a_run_that_another_process_is_at_is_left_to_it(folder, trained, tmp_path, monkeypatch):
    main(arguments(folder, tmp_path, "--stages", "sources"))
    waiting = run("head", "cr", 0, None)
    monkeypatch.setattr(running.plan, "target_runs", lambda asked, entries: [waiting])
    log, slept = Log(tmp_path / "out" / RUNS), []

    def other_finishes(seconds):
        slept.append(seconds)
        Log(log.file).add({**waiting, "score": 0.5, "wall": 1.0})

    monkeypatch.setattr(running.time, "sleep", other_finishes)
    trained.clear()
    runner = running.Runner(HEADS, log, None, tmp_path / "work")
    given = parse(arguments(folder, tmp_path))
    (wave,) = waves_of(HEADS, given)
    with claim(tmp_path / "work" / "claims", waiting) as ours:
        assert ours
        runner.run(command.asked_of(HEADS, given, wave), ["targets"])
    assert len(slept) == 1 and trained == []
    assert log.find(waiting)["score"] == 0.5


def test_stages_and_sizes_can_be_chosen():
    given = parse(["--targets", "rte", "--shots", "4", "full", "--stages", "targets"])
    assert (given.targets, given.shots, given.stages) == (["rte"], [4, "full"], ["targets"])
    (wave,) = waves_of(HEADS, given)
    assert (wave.shots, wave.seeds) == ((4, "full"), 5)
    assert waves_of(HEADS, parse([])) == HEADS.waves
    words = PARTS["words"]
    first = command.asked_of(words, parse([]), words.waves[0])
    assert (list(first.shots), first.seeds, first.targets[0]) == ([16], 3, "cr")
    assert set(first.targets) < set(words.targets)
    assert {m.name for m in first.methods} < set(words.methods)
    assert {k for wave in HEADS.waves for k in wave.shots} == {4, 16, FULL}
    assert parse(["--quick"]).folder != parse([]).folder
    given = parse(["--steps", "16=7", "--batch", "4"])
    budget = command.budget_of(HEADS, given)
    assert (budget.steps_for(16), budget.steps_for(4), budget.batch) == (7, 30, 4)


def test_a_quick_run_does_not_write_into_the_docs(capsys):
    with pytest.raises(SystemExit):
        parse(["--quick", "--folder", str(command.FOLDER)])
    assert "--folder of its own" in capsys.readouterr().err


def test_the_time_left_is_that_of_runs_like_these():
    entries = [
        run("head", "cr", 0, 0.5) | {"wall": 2.0},
        run("head", "cr", 1, 0.5) | {"wall": 4.0},
        run("full", "cr", 0, 0.5, shots="full") | {"wall": 100.0},
        run("full", "cr", 0, 0.5, stage="tune") | {"wall": 1000.0},
    ]
    assert seconds_left([run("head", "rte", 5, None)] * 2, entries) == 6.0
    # A method that was not run yet: as others with so many rows.
    assert seconds_left([run("mpt", "rte", 5, None)], entries) == 3.0
    assert seconds_left([run("mpt", "rte", 5, None, shots="full")], entries) == 100.0
    assert seconds_left([run("mpt", "rte", 5, None)], []) == 0.0
