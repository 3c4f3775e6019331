"""Grids that grow."""

from studies.transfer.grid import best, grown


def test_a_grid_grows_at_its_edge_and_no_further_than_asked():
    def rising(rate):
        return rate

    assert grown((0.1, 0.3), rising) == (0.1, 0.3, 1.0, 3.0)
    assert grown((0.3, 1.0), lambda rate: -rate) == (0.03, 0.1, 0.3, 1.0)
    assert grown((1e-05, 3e-05, 0.0001), lambda rate: -abs(rate - 3e-05)) == (1e-05, 3e-05, 0.0001)
    assert grown((0.01, 0.1, 1.0), lambda rate: -rate) == (0.001, 0.003, 0.01, 0.1, 1.0)


def test_a_grid_without_all_scores_stays_as_it_is():
    known = {0.1: 1.0}
    assert grown((0.1, 0.3), known.get) == (0.1, 0.3)
    assert best((0.1, 0.3), known.get) is None
    # Further ones wait for the score of the one that was added.
    known = {0.1: 0.5, 0.3: 1.0}
    assert grown((0.1, 0.3), known.get) == (0.1, 0.3, 1.0)


def test_of_equal_rates_the_one_in_the_midst_is_best():
    assert best((1.0, 2.0, 3.0), lambda rate: 0.5) == 2.0
    assert grown((1.0, 2.0, 3.0), lambda rate: 0.5) == (1.0, 2.0, 3.0)


def test_one_rate_is_no_grid():
    assert grown((0.0,), lambda rate: 1.0) == (0.0,)
