"""Which runs are asked for, and how settings are chosen."""

import dataclasses

import pytest

from studies.transfer import plan
from studies.transfer.data import SOURCES, TARGETS
from studies.transfer.methods import METHODS
from studies.transfer.methods.mpt import SAME_CLASSES

SHARED = {"virtual_tokens": 16, "batch": 32, "test_rows": 500}


def asked(*methods, **changes):
    given = plan.Asked(
        plan.Budget(), [METHODS[name] for name in methods], ["cr", "rte"], [16], 3, 1, 1, SHARED
    )
    return dataclasses.replace(given, **changes)


def scored(runs, score):
    return [{**run, "score": score(run)} for run in runs]


def test_pseudo_targets_are_sources_and_no_targets():
    assert set(plan.PSEUDO_TARGETS) < set(SOURCES)
    assert not set(plan.PSEUDO_TARGETS) & set(TARGETS)
    assert not set(plan.Budget().left_sources) & set(plan.PSEUDO_TARGETS)


def test_every_grid_has_as_many_rates_in_order():
    """Prompt tuning has one more: what ours is compared with should not be the worse tuned."""
    for name, method in METHODS.items():
        assert len(method.rates) == (5 if name == "prompt" else 4)
        assert list(method.rates) == sorted(method.rates)


def test_a_target_is_run_with_every_seed():
    runs = list(plan.target_runs(asked("head", "prompt"), []))
    assert [(r["method"], r["task"], r["seed"]) for r in runs[:4]] == [
        ("head", "cr", 0), ("prompt", "cr", 0), ("head", "rte", 0), ("prompt", "rte", 0),
    ]  # fmt: skip
    assert len(runs) == 2 * 2 * 3
    assert len(list(plan.target_runs(asked("head", shots=["full"]), []))) == 2


def test_untuned_the_second_of_the_grid_is_taken():
    for run in plan.target_runs(asked("prompt", "mpt"), []):
        assert run["settings"]["rate"] == METHODS[run["method"]].rates[1]


def test_the_best_rate_of_the_pseudo_targets_is_taken():
    want = asked("prompt")
    best = METHODS["prompt"].rates[2]
    entries = scored(
        plan.choosing_runs(want, []), lambda r: 0.6 + 0.1 * (r["settings"]["rate"] == best)
    )
    assert {r["task"] for r in entries} == set(plan.PSEUDO_TARGETS)
    assert len(entries) == 5 * 2
    assert plan.target_rate(want, METHODS["prompt"], 16, entries) == best
    # Not of more rows, nor where a run is missing.
    assert plan.target_rate(want, METHODS["prompt"], 4, entries) != best
    assert plan.target_rate(want, METHODS["prompt"], 16, entries[1:]) != best


def test_rows_that_were_not_tuned_have_the_rate_of_the_most_below_them():
    want, rates = asked("prompt"), METHODS["prompt"].rates
    entries = []
    for shots, best in ((4, rates[3]), (16, rates[2])):
        runs = plan.choosing_runs(dataclasses.replace(want, shots=[shots]), [])
        entries += scored(runs, lambda run, best=best: run["settings"]["rate"] == best)
    for shots, rate in ((4, rates[3]), (8, rates[3]), (16, rates[2]), ("full", rates[2])):
        assert plan.target_rate(want, METHODS["prompt"], shots, entries) == rate
    # A grid with a hole chooses nothing, here or for other rows.
    assert plan.target_rate(want, METHODS["prompt"], "full", entries[:-1]) == rates[3]


def test_pseudo_targets_start_from_sources_without_them():
    want = asked("mpt")
    tuning = list(plan.tuning_runs(want))
    for run in tuning:
        assert not set(run["settings"]["tasks"]) & set(plan.PSEUDO_TARGETS)
    rates = METHODS["mpt"].rates
    entries = scored(tuning, lambda run: run["settings"]["rate"] == rates[0])
    assert plan.source_rate(want, METHODS["mpt"], entries) == rates[0]
    (left,) = {run["settings"]["source"] for run in plan.choosing_runs(want, entries)}
    assert left == plan.folder_name(tuning[0])
    (source,) = plan.source_runs(want, entries)
    assert source["settings"]["tasks"] == list(SOURCES)
    assert source["settings"]["rate"] == rates[0]
    (used,) = {run["settings"]["source"] for run in plan.target_runs(want, entries)}
    assert used == plan.folder_name(source)
    assert plan.possible_sources(want).keys() >= {left, used}


def test_sources_are_trained_with_every_seed_and_targets_start_from_the_first():
    want = asked("mpt", "peft_mpt", source_seeds=2)
    runs = list(plan.source_runs(want, []))
    assert [(run["method"], run["seed"]) for run in runs] == [
        ("mpt", 0), ("peft_mpt", 0), ("mpt", 1), ("peft_mpt", 1),
    ]  # fmt: skip
    assert len({plan.folder_name(run) for run in runs}) == 4
    assert {run["settings"]["source"] for run in plan.target_runs(want, [])} == {
        plan.folder_name(run) for run in runs[:2]
    }
    assert runs[:2] == list(plan.source_runs(asked("mpt", "peft_mpt"), []))


def test_sources_of_another_method_are_trained_once():
    want = asked("mpt_one_speed", "mpt_plain")
    (source,) = plan.source_runs(want, [])
    assert source["method"] == "mpt_plain"
    assert {run["method"] for run in plan.tuning_runs(want)} == {"mpt_plain"}
    runs = list(plan.target_runs(want, []))
    assert {run["method"] for run in runs} == {"mpt_one_speed", "mpt_plain"}
    assert {run["settings"]["source"] for run in runs} == {plan.folder_name(source)}
    # Its own rates are those of the target alone.
    assert source["settings"]["rate"] == METHODS["mpt_plain"].rates[1]
    assert list(plan.source_runs(asked("mpt_one_speed"), [])) == [source]


def test_a_method_tuned_as_another_takes_its_rate():
    want = asked("mpt_named")
    entries = scored(
        plan.choosing_runs(want, []), lambda r: r["settings"]["rate"] == METHODS["mpt"].rates[2]
    )
    assert {run["method"] for run in entries} == {"mpt"}
    (rate,) = {run["settings"]["rate"] for run in plan.target_runs(want, entries)}
    assert rate == METHODS["mpt"].rates[2]
    # Once for both of them.
    assert len(list(plan.choosing_runs(asked("mpt", "mpt_named"), []))) == len(entries)


def test_named_sources_stand_for_targets_alone():
    """So that nothing sets a named source apart on pseudo-targets, where rates are chosen."""
    assert set(SAME_CLASSES) <= set(TARGETS)
    assert set(SAME_CLASSES.values()) <= set(SOURCES)


def test_methods_without_sources_have_no_source_runs():
    want = asked("head", "prompt", "full")
    assert list(plan.tuning_runs(want)) == list(plan.source_runs(want, [])) == []
    assert all("source" not in r["settings"] for r in plan.target_runs(want, []))


@pytest.mark.parametrize(("shots", "steps"), [(4, 30), (16, 30), (8, 30), ("full", 100)])
def test_steps_follow_from_the_rows(shots, steps):
    assert plan.Budget().steps_for(shots) == steps
