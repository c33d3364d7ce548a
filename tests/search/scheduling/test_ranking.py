import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greensv.search.front import non_dominated
from greensv.search.objectives import objectives_of
from greensv.search.scheduling.ranking import coarse, front_ranks, net_order, scaled

TWO, THREE = objectives_of(("eer", "train_energy")), objectives_of(("eer", "train_energy", "params"))


def peeled(points: np.ndarray) -> list[int]:
    """Ranks by taking front after front away: slow, and the definition."""
    ranks = np.full(len(points), -1)
    for rank in range(len(points)):
        left = np.flatnonzero(ranks < 0)
        if not len(left):
            break
        ranks[left[non_dominated(points[left])]] = rank
    return ranks.tolist()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=40))
def test_ranks_of_two_objectives_are_those_of_fronts_taken_away_one_by_one(points: list[tuple[int, int]]):
    values = np.array(points, dtype=float).reshape(-1, 2)
    assert front_ranks(values).tolist() == peeled(values)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=40))
def test_ranks_of_three_objectives_are_those_of_fronts_taken_away_one_by_one(points: list[tuple[int, int, int]]):
    values = np.array(points, dtype=float).reshape(-1, 3)
    assert front_ranks(values).tolist() == peeled(values)


def test_energies_within_the_tolerance_are_alike_so_the_lower_error_wins():
    values = np.array([[0.040, 10.0], [0.039, 10.3], [0.030, 20.0]])
    exact = scaled(values, TWO)
    assert front_ranks(exact).tolist() == [0, 0, 0]
    assert front_ranks(coarse(exact, TWO, energy_tolerance=0.1)).tolist() == [1, 0, 0]
    assert front_ranks(coarse(exact, TWO, energy_tolerance=0.0)).tolist() == [0, 0, 0]


def test_only_energies_have_a_tolerance():
    values = scaled(np.array([[0.040, 10.0, 1.00e6], [0.039, 10.0, 1.01e6]]), THREE)
    assert front_ranks(coarse(values, THREE, energy_tolerance=0.5)).tolist() == [0, 0]


def test_an_error_rate_is_compared_as_it_is_and_a_zero_energy_does_no_harm():
    assert scaled(np.array([[0.0, 1.0]]), TWO).tolist() == [[0.0, 0.0]]
    assert np.isfinite(scaled(np.array([[0.1, 0.0]]), TWO)).all()


def test_the_net_starts_in_the_middle_and_then_takes_the_farthest():
    points = np.array([[0.0, 1.0], [0.1, 0.4], [0.3, 0.3], [0.35, 0.28], [1.0, 0.0]])
    none = np.zeros(5, dtype=bool)
    assert net_order(points, taken=none, num=5)[0] == 1  # nearest to the best in both
    assert set(net_order(points, taken=none, num=3)) == {1, 0, 4}
    assert sorted(net_order(points, taken=none, num=9)) == [0, 1, 2, 3, 4]


def test_the_net_goes_on_from_what_was_taken():
    points = np.array([[0.0, 1.0], [0.05, 0.9], [0.5, 0.5], [1.0, 0.0]])
    taken = np.array([True, False, False, False])
    assert net_order(points, taken=taken, num=2) == [3, 2]


@pytest.mark.parametrize("num", [1, 2, 3])
def test_equal_points_are_all_given_once(num: int):
    points = np.ones((3, 2))
    assert len(set(net_order(points, taken=np.zeros(3, dtype=bool), num=num))) == num
