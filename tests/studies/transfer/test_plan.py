"""Which runs are asked for, and how settings are chosen."""

import dataclasses

import pytest

from studies.transfer import plan
from studies.transfer.heads.methods import METHODS
from studies.transfer.heads.methods.mpt import SAME_CLASSES
from studies.transfer.heads.part import BUDGET, SOURCES, TARGETS
from studies.transfer.parts import PARTS

SHARED = {"virtual_tokens": 16, "batch": 32, "test_rows": 500}


def asked(*methods, **changes):
    given = plan.Asked(
        BUDGET, [METHODS[name] for name in methods], ["cr", "rte"], [16], 3, 1, 1, SHARED
    )
    return dataclasses.replace(given, **changes)


def scored(runs, score):
    return [{**run, "score": score(run)} for run in runs]


@pytest.mark.parametrize("part", PARTS.values(), ids=list(PARTS))
def test_pseudo_targets_are_sources_and_no_targets(part):
    budget = part.budget
    assert set(budget.pseudo_targets) < set(budget.sources)
    assert not set(budget.pseudo_targets) & set(part.targets)
    assert not set(budget.left_sources) & set(budget.pseudo_targets)


@pytest.mark.parametrize("part", PARTS.values(), ids=list(PARTS))
def test_every_grid_has_as_many_rates_in_order(part):
    """Without sources one more under heads: what ours is compared with is not worse tuned."""
    for name, method in part.methods.items():
        sizes = {(5 if (part.name, name) == ("heads", "prompt") else 4), len(method.rates)}
        assert len(sizes) == 1 or (name == "zero_shot" and method.rates == (0.0,))
        assert list(method.rates) == sorted(method.rates)
    for pair in (*part.compared, *part.compared_sources):
        assert set(pair) <= set(part.methods)
    assert {name for wave in part.waves for name in wave.methods or ()} <= set(part.methods)


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
    # In the midst of the grid, which then stays as it is.
    entries = scored(
        plan.choosing_runs(want, []), lambda r: 0.6 + 0.1 * (r["settings"]["rate"] == best)
    )
    assert {r["task"] for r in entries} == set(BUDGET.pseudo_targets)
    assert len(entries) == 5 * 2
    assert plan.target_rate(want, METHODS["prompt"], 16, entries) == best
    # Fewer rows that were not tuned have it too; none where a run is missing.
    assert plan.target_rate(want, METHODS["prompt"], 4, entries) == best
    assert plan.target_rate(want, METHODS["prompt"], 16, entries[1:]) != best


def test_rows_that_were_not_tuned_have_the_rate_of_the_most_below_them_else_above():
    want, rates = asked("prompt"), METHODS["prompt"].rates
    entries = []
    for shots, best in ((4, rates[3]), (16, rates[2])):
        runs = plan.choosing_runs(dataclasses.replace(want, shots=[shots]), [])
        entries += scored(runs, lambda run, best=best: run["settings"]["rate"] == best)
    for shots, rate in (
        (2, rates[3]),
        (4, rates[3]),
        (8, rates[3]),
        (16, rates[2]),
        ("full", rates[2]),
    ):
        assert plan.target_rate(want, METHODS["prompt"], shots, entries) == rate
    # A grid with a hole chooses nothing, here or for other rows.
    assert plan.target_rate(want, METHODS["prompt"], "full", entries[:-1]) == rates[3]


def test_pseudo_targets_start_from_sources_without_them():
    want = asked("mpt")
    tuning = list(plan.tuning_runs(want, []))
    for run in tuning:
        assert not set(run["settings"]["tasks"]) & set(BUDGET.pseudo_targets)
    rates = METHODS["mpt"].rates
    entries = scored(tuning, lambda run: run["settings"]["rate"] == rates[1])
    assert plan.source_rate(want, METHODS["mpt"], entries) == rates[1]
    (left,) = {run["settings"]["source"] for run in plan.choosing_runs(want, entries)}
    assert left == plan.folder_name(tuning[1])
    (source,) = plan.source_runs(want, entries)
    assert source["settings"]["tasks"] == list(SOURCES)
    assert source["settings"]["rate"] == rates[1]
    (used,) = {run["settings"]["source"] for run in plan.target_runs(want, entries)}
    assert used == plan.folder_name(source)
    assert plan.possible_sources(want, entries).keys() >= {left, used}


def test_rates_of_fewer_steps_on_some_sources_may_be_lowered_for_all():
    some = {"tuning_sources": ("sst2", "subj"), "places_below": 2}
    want = asked("mpt", budget=dataclasses.replace(BUDGET, **some))
    tuning = list(plan.tuning_runs(want, []))
    assert {tuple(run["settings"]["tasks"]) for run in tuning} == {("sst2", "subj")}
    rates = METHODS["mpt"].rates
    assert [run["settings"]["rate"] for run in tuning] == list(rates)
    entries = scored(tuning, lambda run: run["settings"]["rate"] == rates[2])
    # Pseudo-targets start from what was trained for fewer steps, at its own rate.
    (left,) = {run["settings"]["source"] for run in plan.choosing_runs(want, entries)}
    assert left == plan.folder_name(tuning[2])
    (source,) = plan.source_runs(want, entries)
    assert source["settings"]["rate"] == rates[0]
    assert source["settings"]["tasks"] == list(SOURCES)
    (used,) = {run["settings"]["source"] for run in plan.target_runs(want, entries)}
    assert used == plan.folder_name(source)


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
    want = asked("mpt_named", "mpt_plain")
    (source,) = plan.source_runs(want, [])
    assert source["method"] == "mpt_plain"
    assert {run["method"] for run in plan.tuning_runs(want, [])} == {"mpt_plain"}
    runs = list(plan.target_runs(want, []))
    assert {run["method"] for run in runs} == {"mpt_named", "mpt_plain"}
    assert {run["settings"]["source"] for run in runs} == {plan.folder_name(source)}
    # Its own rates are those of the target alone.
    assert source["settings"]["rate"] == METHODS["mpt_plain"].rates[1]
    assert list(plan.source_runs(asked("mpt_named"), [])) == [source]


def test_a_method_tuned_as_another_takes_its_rate():
    want = asked("mpt_named")
    entries = scored(
        plan.choosing_runs(want, []),
        lambda r: r["settings"]["rate"] == METHODS["mpt_plain"].rates[2],
    )
    assert {run["method"] for run in entries} == {"mpt_plain"}
    (rate,) = {run["settings"]["rate"] for run in plan.target_runs(want, entries)}
    assert rate == METHODS["mpt_plain"].rates[2]
    # Once for both of them.
    assert len(list(plan.choosing_runs(asked("mpt_plain", "mpt_named"), []))) == len(entries)


def test_named_sources_stand_for_targets_alone():
    """So that nothing sets a named source apart on pseudo-targets, where rates are chosen."""
    assert set(SAME_CLASSES) <= set(TARGETS)
    assert set(SAME_CLASSES.values()) <= set(SOURCES)


def test_methods_without_sources_have_no_source_runs():
    want = asked("head", "prompt", "full")
    assert list(plan.tuning_runs(want, [])) == list(plan.source_runs(want, [])) == []
    assert all("source" not in r["settings"] for r in plan.target_runs(want, []))


@pytest.mark.parametrize(("shots", "steps"), [(4, 30), (16, 30), (8, 30), ("full", 100)])
def test_steps_follow_from_the_rows(shots, steps):
    assert BUDGET.steps_for(shots) == steps


def test_a_grid_grows_where_the_best_rate_is_at_its_edge():
    want, best = asked("full"), METHODS["full"].rates[-1]
    entries = []
    for expected in (8, 10, 10):
        runs = list(plan.choosing_runs(want, entries))
        assert len(runs) == expected
        entries = scored(runs, lambda run: -abs(run["settings"]["rate"] - best))
    assert plan.target_rate(want, METHODS["full"], 16, entries) == best
    # What was there before it grew chooses nothing yet.
    assert plan.target_rate(want, METHODS["full"], 16, entries[:8]) == METHODS["full"].rates[1]


def test_rows_that_are_not_to_be_tuned_are_not():
    want = asked("full", shots=[4, 16], budget=dataclasses.replace(BUDGET, tuned_shots=(16,)))
    assert {run["shots"] for run in plan.choosing_runs(want, [])} == {16}


def test_a_method_has_its_own_number_of_virtual_tokens():
    methods = PARTS["words"].methods
    want = asked("full", methods=[methods["prompt"], methods["prompt_100"]])
    tokens = {
        run["method"]: run["settings"]["virtual_tokens"] for run in plan.target_runs(want, [])
    }
    assert tokens == {"prompt": 16, "prompt_100": 100}


def test_what_learns_nothing_is_not_tuned():
    part = PARTS["words"]
    assert part.budget.places_below
    want = asked("full", methods=[part.methods["zero_shot"]], budget=part.budget)
    assert list(plan.choosing_runs(want, [])) == []
    assert {run["settings"]["rate"] for run in plan.target_runs(want, [])} == {0.0}


def test_a_source_tuned_as_another_is_trained_once_that_one_is_tuned():
    methods = PARTS["words"].methods
    plain, longer = methods["mpt_plain"], methods["mpt_100"]
    want = asked("full", methods=[plain, longer])
    first = list(plan.tuning_runs(want, []))
    assert {run["method"] for run in first} == {"mpt_plain"}
    best = plain.rates[2]
    entries = scored(first, lambda run: run["settings"]["rate"] == best)
    *_, last = plan.tuning_runs(want, entries)
    assert (last["method"], last["settings"]["rate"]) == ("mpt_100", best)
    assert plan.source_rate(want, longer, entries) == best
    assert plan.folder_name(last) in plan.possible_sources(want, entries)
    (source,) = (r for r in plan.source_runs(want, entries) if r["method"] == "mpt_100")
    assert source["settings"]["rate"] == best


def test_more_of_the_sources_is_more_steps_and_rows_at_the_same_rates():
    part = PARTS["words"]
    names = ("mpt_plain", "mpt_plain_sources_3", "mpt_nearest_sources_3", "mpt_frozen_1_sources_3")
    methods = [part.methods[name] for name in names]
    want = asked("full", methods=methods, budget=part.budget)
    # Nothing of their own is tuned.
    assert {run["method"] for run in plan.tuning_runs(want, [])} == {"mpt_plain"}
    assert {run["method"] for run in plan.choosing_runs(want, [])} == {"mpt_plain", "mpt_frozen_1"}
    plain, more = plan.source_runs(want, [])
    assert [run["method"] for run in (plain, more)] == list(names[:2])
    assert more["settings"] == {
        **plain["settings"],
        "steps": 3 * part.budget.source_steps,
        "rows": 3 * part.budget.source_rows,
    }
    runs = {run["method"]: run["settings"] for run in plan.target_runs(want, [])}
    assert runs["mpt_plain"]["source"] == plan.folder_name(plain)
    assert {runs[name]["source"] for name in names[1:]} == {plan.folder_name(more)}
    assert {**runs[names[1]], "source": ""} == {**runs["mpt_plain"], "source": ""}
    everything = asked("full", methods=methods, budget=part.budget)
    everything = dataclasses.replace(
        everything, budget=dataclasses.replace(part.budget, source_rows=None)
    )
    assert {run["settings"]["rows"] for run in plan.source_runs(everything, [])} == {None}
