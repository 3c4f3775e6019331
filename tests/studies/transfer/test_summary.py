"""Means, deviations and intervals, against NumPy and by hand."""

import numpy as np
import pytest
from scipy.stats import sem, t

from studies.transfer import summary

from .fakes import run, target_runs

RUNS = summary.target_runs(
    target_runs(
        mpt=([0.80, 0.90, 0.85], [0.60, 0.70, 0.65]),
        prompt=([0.70, 0.85, 0.85], [0.60, 0.60]),
        head=([0.5],),
    )
)


def test_deviations_are_the_samples():
    values = summary.scores(RUNS, "mpt", 16, "cr")
    assert values == [0.80, 0.90, 0.85]
    mean, deviation = summary.mean_and_deviation(values)
    assert mean == pytest.approx(np.mean(values))
    assert deviation == pytest.approx(np.std(values, ddof=1))
    assert summary.mean_and_deviation([0.5]) == (0.5, None)


def test_a_mean_over_targets_needs_all_of_them():
    means = summary.means_over_targets(RUNS, "mpt", 16, ["cr", "snips"])
    assert means == pytest.approx([0.70, 0.80, 0.75])
    # Only seeds that both targets have.
    assert len(summary.means_over_targets(RUNS, "prompt", 16, ["cr", "snips"])) == 2
    assert summary.means_over_targets(RUNS, "head", 16, ["cr", "snips"]) == []
    assert summary.means_over_targets(RUNS, "mpt", 4, ["cr", "snips"]) == []


def test_differences_are_of_the_same_target_and_seed():
    found = summary.paired_differences(RUNS, "mpt", "prompt", 16)
    assert found["cr"] == pytest.approx([0.10, 0.05, 0.0])
    assert found["snips"] == pytest.approx([0.0, 0.10])
    assert summary.mean_difference(found) == pytest.approx((0.05 + 0.05) / 2)
    assert set(summary.paired_differences(RUNS, "mpt", "head", 16)) == {"cr"}
    assert summary.paired_differences(RUNS, "mpt", "full", 16) == {}


def test_the_interval_of_one_target_is_scipys():
    values = [0.10, 0.05, 0.0, 0.02, 0.03]
    low, high = t.interval(0.95, 4, np.mean(values), sem(values))
    assert summary.interval({"cr": values}) == pytest.approx((np.mean(values), low, high))


def test_two_seeds_by_hand():
    # Of 0 and 1 the mean's variance is 1/4. One degree of freedom: the table has t = 12.706.
    assert summary.interval({"cr": [0.0, 1.0]}) == pytest.approx(
        (0.5, 0.5 - 12.706 / 2, 0.5 + 12.706 / 2), rel=1e-4
    )
    # Two of them: the variance of their mean is 1/8, with two degrees of freedom t = 4.3027.
    assert summary.interval({"cr": [0.0, 1.0], "snips": [1.0, 2.0]}) == pytest.approx(
        (1.0, 1 - 4.3027 / 8**0.5, 1 + 4.3027 / 8**0.5), rel=1e-4
    )
    # A target without any spread adds nothing: its half of the mean halves the first one's width.
    assert summary.interval({"cr": [0.0, 1.0], "snips": [1.0, 1.0]}) == pytest.approx(
        (0.75, 0.75 - 12.706 / 4, 0.75 + 12.706 / 4), rel=1e-4
    )
    assert summary.interval({"cr": [0.25, 0.25], "snips": [0.5, 0.5]}) == (0.375, 0.375, 0.375)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Of 1,000 draws of five targets with five seeds each and unequal spread."""
    rng, spread = np.random.default_rng(0), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    held = 0
    for _ in range(1000):
        drawn = rng.normal(scale=spread[:, None], size=(5, 5))
        _, low, high = summary.interval({str(i): row.tolist() for i, row in enumerate(drawn)})
        held += low <= 0 <= high
    assert 930 <= held <= 970


def test_one_seed_has_no_interval():
    assert summary.interval({"cr": [0.1, 0.2], "snips": [0.1]}) is None
    assert summary.interval({}) is None


def test_of_repeated_runs_the_last_counts():
    runs = summary.target_runs([run("mpt", "cr", 0, 0.1), run("mpt", "cr", 0, 0.2, rate=0.03)])
    assert summary.scores(runs, "mpt", 16, "cr") == [0.2]


def test_tuning_scores_by_rate():
    entries = [
        run("mpt", "trec", 0, 0.4, stage="tune", rate=0.03),
        run("mpt", "trec", 0, 0.5, stage="tune", rate=0.01),
        run("mpt", "qqp", 0, 0.6, stage="tune", rate=0.01),
        run("mpt", "qqp", 0, 0.7, stage="tune", rate=0.01),
        run("mpt", "qqp", 0, 0.9, stage="tune", rate=0.01, shots=4),
        run("full", "qqp", 0, 0.9, stage="tune", rate=0.01),
    ]
    assert summary.tuning_scores(entries, "mpt", 16) == {0.01: [0.7, 0.5], 0.03: [0.4]}


def test_all_rows_come_last():
    assert summary.in_order([32, "full", 4, 16, 4]) == [4, 16, 32, "full"]
