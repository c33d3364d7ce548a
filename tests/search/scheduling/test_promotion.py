import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from greensv.search.scheduling.promotion import promotable
from greensv.search.scheduling.ranking import front_ranks

POINTS = np.array([[1.0, 9.0], [5.0, 5.0], [9.0, 1.0], [2.0, 9.5], [6.0, 6.0], [9.5, 2.0]])
"""Two fronts of three."""


def opened(*rows: int, num: int = 6) -> np.ndarray:
    return np.isin(np.arange(num), rows)


def test_a_third_is_promotable_and_nothing_of_fewer_than_three():
    assert len(promotable(POINTS, is_open=opened(0, 1, 2, 3, 4, 5), share=1 / 3)) == 2
    assert promotable(POINTS[:2], is_open=opened(0, 1, num=2), share=1 / 3) == []
    assert promotable(POINTS[:0], is_open=opened(num=0), share=1 / 3) == []
    assert len(promotable(POINTS[:3], is_open=opened(0, 1, 2, num=3), share=1 / 3)) == 1


def test_the_first_front_goes_before_the_second():
    assert set(promotable(POINTS, is_open=opened(*range(6)), share=0.5)) == {0, 1, 2}
    assert set(promotable(POINTS, is_open=opened(*range(6)), share=4 / 6)) > {0, 1, 2}


def test_what_has_gone_on_counts_for_the_share_and_the_rest_lies_far_from_it():
    # Row 0 has gone on; one place is left in the first front, and row 2 is the farthest from row 0.
    assert promotable(POINTS, is_open=opened(1, 2, 3, 4, 5), share=1 / 3) == [2]
    assert promotable(POINTS, is_open=opened(2, 3, 4, 5), share=1 / 3) == []


def test_a_better_newcomer_goes_on_though_worse_ones_went_before():
    newcomer = np.vstack([POINTS, [[0.5, 0.5]]])
    assert promotable(newcomer, is_open=opened(6, num=7), share=1 / 3) == [6]


def test_with_a_share_of_all_everything_goes_on_the_best_first():
    order = promotable(POINTS, is_open=opened(*range(6)), share=1.0)
    assert front_ranks(POINTS)[order].tolist() == [0, 0, 0, 1, 1, 1]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), min_size=1, max_size=30),
    st.sampled_from([1 / 2, 1 / 3, 1 / 4]),
)
def test_never_more_than_the_share_is_open_and_none_is_worse_than_one_left_out(rows, share):
    points = np.array([row[:2] for row in rows], dtype=float)
    is_open = np.array([row[2] for row in rows])
    found = promotable(points, is_open=is_open, share=share)
    assert len(found) == len(set(found)) <= int(len(rows) * share + 1e-9)
    assert is_open[found].all()
    ranks = front_ranks(points)
    better = [int(sum(ranks < ranks[row])) for row in found]
    assert all(num < int(len(rows) * share + 1e-9) for num in better)
