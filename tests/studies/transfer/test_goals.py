"""Curves, the targets that count and the goals, by hand."""

import pytest

from studies.transfer import curves, goals
from studies.transfer.page import page
from studies.transfer.parts import PARTS
from studies.transfer.source_scores import source_difference, worst_source
from studies.transfer.summary import target_runs
from studies.transfer.validity import told, valid_targets
from studies.transfer.watch import Watch

from .fakes import machine
from .fakes import run as heads_run

WORDS = PARTS["words"]


def run(method, task, seed, score, curve=None, **more):
    entry = heads_run(method, task, seed, score, part="words", watched_rows=120, **more)
    entry["parameters"] = {"full": 134_515_008, "mpt_frozen_1": 596}.get(method, 12_116)
    return entry if curve is None else {**entry, "curve": curve}


def runs_of(*entries):
    return target_runs(entries)


def curve(*scores):
    return [[step, score] for step, score in zip((0, 10, 20, 30, 40, 60), scores, strict=True)]


SLOW = curve(0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FAST = curve(0.5, 0.7, 0.9, 0.9, 0.9, 0.9)
BOTH = runs_of(
    *(run("prompt", "snips", seed, 0.8, SLOW) for seed in (0, 1)),
    *(run("mpt_plain", "snips", seed, 0.9, FAST) for seed in (0, 1)),
    run("zero_shot", "snips", 0, 0.3, [[0, 0.35], [60, 0.35]]),
    run("full", "snips", 0, 0.9),
)


def test_a_watch_looks_at_five_steps_and_gives_each_parts_loss():
    seen = []
    watch = Watch(12, lambda predict: predict() / 100)
    watch.begin(lambda: len(seen))
    losses = [12 - i for i in range(12)]
    for step in range(1, 13):
        seen.append(step)
        watch.after_step(step, sum(losses[:step]) / step)
    assert watch.scores == {0: 0.0, 2: 0.02, 4: 0.04, 8: 0.08}
    assert watch.losses == pytest.approx({2: 11.5, 4: 9.5, 8: 6.5, 12: 2.5})
    assert watch.seconds > 0


def test_a_target_counts_that_some_method_with_all_rows_learns():
    entries = [
        run("prompt", "cr", 0, 0.70, shots="full"),
        run("full", "cr", 0, 0.74, shots="full"),
        run("full", "cr", 0, 0.60),
        run("prompt", "tweet_irony", 0, 0.95),
        run("prompt", "tweet_irony", 0, 0.70, shots="full"),
        run("prompt", "rte", 0, 0.65, shots=4),
    ]
    runs = runs_of(*entries)
    # Of cr 63.7% are of one class, of tweet_irony 60.3%, of rte 52.7%.
    assert valid_targets(WORDS, runs) == ["cr", "rte"]
    text = told(WORDS, runs)
    assert "- cr counts: full fine-tuning has 74.0 with all rows, the largest class 63.7." in text
    assert "- tweet_irony does not count in means: prompt tuning has 70.0 with all rows" in text
    assert "has 65.0 at k = 4, all rows being not run yet" in text
    table = page([machine(), *entries])
    assert "| method | cr | (tweet_irony) | mean |" in table


def test_a_curve_is_the_mean_over_targets_of_methods_that_have_all():
    runs = runs_of(
        run("prompt", "snips", 0, 0.8, curve(0.2, 0.3, 0.4, 0.5, 0.6, 0.8)),
        run("prompt", "snips", 1, 0.8, curve(0.4, 0.5, 0.6, 0.7, 0.8, 0.8)),
        run("prompt", "cr", 0, 0.9, curve(0.5, 0.6, 0.7, 0.8, 0.9, 0.9)),
        run("mpt_plain", "snips", 0, 0.9, FAST),
        run("prompt", "disfl_qa", 0, 0.5),
    )
    assert curves.mean_curve(WORDS, runs, "prompt", 16) == pytest.approx(
        {0: 0.4, 10: 0.5, 20: 0.6, 30: 0.7, 40: 0.8, 60: 0.85}
    )
    assert curves.mean_curve(WORDS, runs, "mpt_plain", 16) == {}
    assert curves.steps_to({0: 0.2, 10: 0.6, 20: 0.5}, 0.4) == pytest.approx(5)
    assert curves.steps_to({0: 0.2, 10: 0.6}, 0.1) == 0
    assert curves.steps_to({0: 0.2, 10: 0.6}, 0.7) is None


def test_faster_is_a_third_of_the_steps():
    assert goals.faster(WORDS, BOTH, "mpt_plain", 16) == ("80.0 at step 60; MPT at step 15", True)
    assert goals.at_once(WORDS, BOTH, "mpt_plain", 16) == ("50.0 against 35.0", True)
    late = runs_of(run("prompt", "snips", 0, 0.8, SLOW), run("mpt_plain", "snips", 0, 0.8, SLOW))
    assert goals.faster(WORDS, late, "mpt_plain", 16) == ("80.0 at step 60; MPT at step 60", False)
    assert goals.at_once(WORDS, late, "mpt_plain", 16) is None


def test_a_method_of_more_steps_stands_beside_the_others():
    """Its log says how many times the steps of the others: the budget is theirs."""
    longer = [run("prompt_3", "snips", seed, 0.85, times=3) for seed in (0, 1)]
    text = page([machine(), *(e for own in BOTH.values() for e in own.values()), *longer])
    (line,) = [line for line in text.splitlines() if "three times its steps (no goal)" in line]
    assert "| +5.0 (+5.0 to +5.0; 1 targets) |" in line
    rows = [line for line in text.splitlines() if line.startswith("| prompt tuning")]
    assert [line for line in rows if "| 0.01 | 180 |" in line] == [
        "| prompt tuning, 3 × the steps | k = 16 | learning rate of the prompt | 0.01 | 180 | "
        "not tuned |"
    ]


def test_ahead_is_by_points_and_surely():
    figure, met = goals.ahead(WORDS, BOTH, "mpt_plain", "prompt", 16, by=5.0, surely=True)
    assert (figure, met) == ("+10.0 (+10.0 to +10.0; 1 targets)", True)
    assert not goals.ahead(WORDS, BOTH, "mpt_plain", "prompt", 16, by=10.5)[1]
    # One seed has no interval, and is not sure.
    figure, met = goals.ahead(WORDS, BOTH, "mpt_plain", "full", 16, surely=True)
    assert (figure, met) == ("+0.0 (1 targets, no interval)", False)
    assert goals.ahead(WORDS, BOTH, "mpt_plain", "lora", 16) is None


def test_numbers_beside_full_fine_tuning():
    assert goals.share(BOTH, "mpt_plain") == ("0.00901%", True)


def test_sources_beside_their_teachers_and_their_largest_class():
    entry = run("mpt_plain", "sources", 0, 0.7, shots="full", stage="sources")
    entry["scores"] = {"sst2": 0.80, "qqp": 0.60, "cola": 0.1, "e2e_nlg": 0.0}
    taught = run("mpt", "sources", 0, 0.7, shots="full", stage="sources")
    taught |= {"scores": {"sst2": 0.9}, "teacher_scores": {"sst2": 0.81, "qqp": 0.60, "cola": 0.1}}
    entries = [entry, taught]
    found = source_difference(WORDS, entries, "mpt_plain", "teachers", -1.0)
    assert found == ("-0.3 (3 tasks)", True)
    assert worst_source(WORDS, entries, "mpt_plain") == ("qqp 60.0 against 62.3", False)
    assert worst_source(WORDS, entries, "mpt") == ("all of 1", True)
    text = page([machine(), *entries])
    assert (
        "| sources above the largest class, each of them | qqp 60.0 against 62.3 | missed |" in text
    )
    assert "| k = 16: MPT ahead of zero-shot at step 0 |  | not run yet |" in text


def test_free_text_has_a_table_of_its_own():
    scored = {"exact_match": 0.25, "bleu": 0.5}
    few, many = (run("prompt", "disfl_qa", seed, 0.25) | scored for seed in (0, 1))
    text = page([machine(), few, many, run("full", "disfl_qa", 0, 0.5)])
    assert "| method | disfl_qa, k = 16 |" in text
    assert "| prompt tuning | 25.0 ± 0.0 / 50.0 ± 0.0 |" in text


def test_more_of_the_sources_has_lines_where_it_has_runs():
    entries = [machine("words"), *(e for own in BOTH.values() for e in own.values())]
    assert "3 × the source steps at least" not in goals.goals(WORDS, entries, BOTH)
    more = [run("mpt_plain_sources_3", "snips", seed, 0.87, FAST) for seed in (0, 1)]
    runs = runs_of(*entries[1:], *more)
    told = goals.goals(WORDS, [*entries, *more], runs)
    wanted = "k = 16: MPT, 3 × the source steps at least 5 points over prompt tuning"
    (line,) = (line for line in told.splitlines() if wanted in line)
    assert "+7.0 (+7.0 to +7.0; 1 targets)" in line and line.endswith("| met |")
    assert "MPT from the nearest source, 3 × the source steps" not in told
