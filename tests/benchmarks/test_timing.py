"""What is timed, in which order, and what is said of it; no real clock is read."""

import json
import sys

import pytest

from benchmarks import part
from benchmarks.timing import middle, paired, ratios, spread


class FakeClock:
    """Time passes only where a function says so."""

    def __init__(self):
        self.now, self.calls = 100.0, []

    def __call__(self):
        return self.now

    def function(self, name, seconds):
        """A function that takes these seconds, one after another."""
        remaining = list(seconds)

        def run():
            self.calls.append(name)
            self.now += remaining.pop(0)

        return run


def test_rounds_go_to_and_fro_and_warm_ups_do_not_count():
    clock = FakeClock()
    runs = {
        "a": clock.function("a", [50.0, 3.0, 1.0, 2.0]),
        "b": clock.function("b", [70.0, 6.0, 4.0, 8.0]),
    }
    seconds = paired(runs, repeats=3, warm_ups=1, clock=clock)
    assert clock.calls == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert seconds == {"a": [3.0, 1.0, 2.0], "b": [6.0, 4.0, 8.0]}


def test_what_happens_between_functions_is_not_timed():
    clock = FakeClock()

    def slow_to_call():
        clock.now += 1.0

    class Runs(dict):
        def items(self):
            clock.now += 1000.0
            return super().items()

    assert paired(Runs(a=slow_to_call), repeats=2, warm_ups=0, clock=clock) == {"a": [1.0, 1.0]}


def test_ratios_are_taken_round_by_round():
    theirs, ours = [2.0, 9.0, 4.0], [1.0, 3.0, 4.0]
    assert ratios(theirs, ours) == [2.0, 3.0, 1.0]
    # The median of ratios, which is not the ratio of medians, 4 / 3.
    assert spread(ratios(theirs, ours)) == (2.0, 1.0, 3.0)
    assert middle([1.0, 4.0]) == 2.5


def test_ratios_of_another_number_of_rounds_are_an_error():
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("results", "status"),
    [
        ({"seconds": {"a": [9.0]}}, 0),
        ({"rows": [{"agrees": True}, {"agrees": True}]}, 0),
        ({"rows": [{"agrees": True}, {"agrees": False}]}, 1),
        ({"agrees": False}, 1),
    ],
)
def test_the_exit_status_tells_of_outputs_that_differ(results, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["part", "--quick"])
    assert part.run_part(lambda quick: {**results, "quick": quick}) == status
    assert json.loads(capsys.readouterr().out) == {**results, "quick": True}
