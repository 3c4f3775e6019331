"""Runs are kept, and found again."""

import json

from studies.transfer.log import Log, key

from .fakes import run


def test_what_was_run_is_found_by_its_inputs(tmp_path):
    log = Log(tmp_path / "new" / "runs.jsonl")
    log.add(run("head", "cr", 0, 0.8))
    again = Log(log.file)
    assert again.entries == log.entries == [run("head", "cr", 0, 0.8)]
    assert again.find(run("head", "cr", 0, None))["score"] == 0.8
    for other in (
        run("full", "cr", 0, 0.8),
        run("head", "rte", 0, 0.8),
        run("head", "cr", 1, 0.8),
        run("head", "cr", 0, 0.8, shots=4),
        run("head", "cr", 0, 0.8, stage="tune"),
        run("head", "cr", 0, 0.8, rate=0.1),
    ):
        assert again.find(other) is None


def test_the_order_of_settings_does_not_matter():
    one = run("head", "cr", 0, 0.8)
    other = {**one, "settings": dict(reversed(one["settings"].items()))}
    assert key(one) == key(other)


def test_a_killed_programs_half_line_is_cut_off(tmp_path):
    file = tmp_path / "runs.jsonl"
    whole = json.dumps(run("head", "cr", 0, 0.8)) + "\n"
    file.write_text(whole + whole[:20])
    log = Log(file)
    assert len(log.entries) == 1
    log.add(run("head", "cr", 1, 0.9))
    assert [entry["seed"] for entry in Log(file).entries] == [0, 1]
