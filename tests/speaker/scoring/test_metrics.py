import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from greensv.errors import DataError
from greensv.speaker.dataset import Pairs
from greensv.speaker.scoring import sorted_scores
from greensv.speaker.scoring.metrics import (
    act_dcf,
    bayes_threshold,
    eer,
    measure_conditions,
    measure_scores,
    min_dcf,
    verify_scores,
)
from greensv.speaker.scoring.sorted_scores import equal_error, sort_scores

RNG = np.random.default_rng(0)


def eer_of_sklearn(
    scores: NDArray[np.float64], is_target: NDArray[np.bool_], weights: NDArray[np.float64] | None = None
) -> float:
    """The ROC of scikit-learn, walked along its length: where false accept = miss."""
    false_accept, accept, _ = roc_curve(is_target, scores, sample_weight=weights, drop_intermediate=False)
    along = np.arange(len(accept))
    gap = lambda x: np.interp(x, along, false_accept) - (1 - np.interp(x, along, accept))  # noqa: E731
    return float(np.interp(brentq(gap, 0, along[-1], xtol=1e-12), along, false_accept))


def draw(num_target: int, num_nontarget: int, decimals: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.concatenate([RNG.normal(1, 1, num_target), RNG.normal(-1, 1, num_nontarget)]).round(decimals)
    order = RNG.permutation(len(scores))
    return scores[order], (np.arange(len(scores)) < num_target)[order]


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("sizes", [(3, 5), (40, 1000), (1000, 40), (2000, 2000)])
def test_eer_equals_that_of_scikit_learns_roc_curve(sizes: tuple[int, int], decimals: int) -> None:
    scores, is_target = draw(*sizes, decimals)
    assert eer(scores, is_target) == pytest.approx(eer_of_sklearn(scores, is_target), abs=1e-9)


def test_eer_by_hand() -> None:
    # Accepting 0.9 and 0.7: of three targets one is missed, of three nontargets one is accepted.
    scores, is_target = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [True, True, False, True, False, False]
    assert eer(scores, is_target) == pytest.approx(1 / 3)


def test_perfect_scores_have_no_error_and_reversed_ones_only_errors() -> None:
    assert eer([3, 2, 1, 0], [True, True, False, False]) == 0
    assert eer([3, 2, 1, 0], [False, False, True, True]) == 1


def test_equal_scores_are_accepted_together() -> None:
    # One threshold accepts all four: the ROC is the diagonal, whatever the order of the pairs.
    assert eer([1, 1, 1, 1], [True, False, True, False]) == 0.5
    assert eer([1, 1, 1, 1], [True, True, True, False]) == 0.5
    # Between (miss 1, fa 0) and (miss 1/2, fa 1/3) and (0, 1): miss = fa on the second stretch, 3/7 along its rates.
    assert eer([2, 2, 1, 1, 1], [True, False, True, False, False]) == pytest.approx(3 / 7)


@given(
    values=st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40),
    shift=st.floats(-3, 3),
)
def test_eer_and_min_dcf_do_not_change_under_increasing_maps_or_permutation(
    values: list[tuple[int, bool]], shift: float
) -> None:
    scores, is_target = np.array([v[0] for v in values], dtype=float), np.array([v[1] for v in values])
    assume(0 < is_target.sum() < len(values))
    rate, cost = eer(scores, is_target), min_dcf(scores, is_target)
    assert 0 <= rate <= 1
    assert 0 <= cost <= 1
    moved = np.exp(scores / 4 + shift)[::-1]
    assert eer(moved, is_target[::-1]) == pytest.approx(rate)
    assert min_dcf(moved, is_target[::-1]) == pytest.approx(cost)
    assert eer(-scores, ~is_target) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("p_target", "c_miss", "c_fa"), [(0.01, 1.0, 1.0), (0.05, 1.0, 1.0), (0.01, 10.0, 1.0), (0.9, 1.0, 2.0)]
)
def test_min_dcf_equals_the_cheapest_point_of_scikit_learns_roc_curve(
    p_target: float, c_miss: float, c_fa: float
) -> None:
    scores, is_target = draw(200, 3000, 2)
    false_accept, accept, _ = roc_curve(is_target, scores, drop_intermediate=False)
    cost = c_miss * p_target * (1 - accept) + c_fa * (1 - p_target) * false_accept
    expected = cost.min() / min(c_miss * p_target, c_fa * (1 - p_target))
    assert min_dcf(scores, is_target, p_target=p_target, c_miss=c_miss, c_fa=c_fa) == pytest.approx(expected)


def test_min_dcf_by_hand() -> None:
    # Two targets, 99 nontargets, one of them above the lower target: reject it at the price of a miss, 0.5·0.01/0.01,
    # or accept it at 0.99·(1/99)/0.01 = 1.
    scores = [5, 3, 4, *[0] * 98]
    is_target = [True, True, *[False] * 99]
    assert min_dcf(scores, is_target) == pytest.approx(0.5)
    # At p = 1/2 accepting it costs 1/99 of 1/2, normalised by 1/2.
    assert min_dcf(scores, is_target, p_target=0.5) == pytest.approx(1 / 99)


def test_useless_scores_cost_what_rejecting_all_costs() -> None:
    assert min_dcf([0, 1], [True, False]) == 1


def test_verification_holds_all_of_it() -> None:
    scores, is_target = draw(300, 700, 3)
    found = verify_scores(scores, is_target, p_target=0.05)
    assert found.eer == eer(scores, is_target)
    assert found.min_dcf == min_dcf(scores, is_target, p_target=0.05)
    assert (found.num_target, found.num_nontarget, found.p_target) == (300, 700, 0.05)


def test_at_the_threshold_both_error_rates_are_about_the_eer() -> None:
    scores, is_target = draw(3000, 3000, 12)
    found = verify_scores(scores, is_target)
    assert (scores[is_target] < found.eer_threshold).mean() == pytest.approx(found.eer, abs=1e-3)
    assert (scores[~is_target] >= found.eer_threshold).mean() == pytest.approx(found.eer, abs=1e-3)


def test_threshold_is_finite_when_the_first_point_already_crosses() -> None:
    assert verify_scores([1, 1, 1], [True, False, False]).eer_threshold == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(DataError, match=r"the score of pair 2 is .*, not a finite number \(so are 1 of 3\)"):
        eer([0.5, bad, 0.1], [True, False, True])


@pytest.mark.parametrize(("is_target", "missing"), [(True, "nontarget"), (False, "target")])
def test_pairs_of_one_class_only_are_an_error(is_target: bool, missing: str) -> None:
    with pytest.raises(DataError, match=f"found 2 pairs, none of them {missing}"):
        verify_scores([0.5, 0.1], [is_target, is_target])


def test_no_pairs_are_an_error() -> None:
    with pytest.raises(DataError, match="found 0 pairs"):
        eer([], [])


@pytest.mark.parametrize("p_target", [0.0, 1.0, -0.1, np.nan])
def test_p_target_is_a_probability(p_target: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        min_dcf([1, 0], [True, False], p_target=p_target)


def test_actual_cost_is_that_of_the_threshold_of_bayes() -> None:
    # At p = 0.01 the threshold is ln 99 = 4.595: one of two targets is missed, one of 99 nontargets accepted.
    scores, is_target = [5.0, 4.5, 4.6, *[-9.0] * 98], [True, True, *[False] * 99]
    assert bayes_threshold(0.01) == pytest.approx(np.log(99))
    assert act_dcf(scores, is_target) == pytest.approx((0.01 / 2 + 0.99 / 99) / 0.01)
    assert act_dcf(scores, is_target, p_target=0.5) == pytest.approx(1 / 99)
    assert act_dcf(scores, is_target, p_target=0.5, c_fa=99.0) == act_dcf(scores, is_target, p_target=0.01) / 1.0


def test_a_score_that_equals_the_threshold_is_accepted_in_both_precisions() -> None:
    is_target = [True, False]
    threshold = bayes_threshold(0.01)
    below, above = np.nextafter(np.float32(threshold), [np.float32(-9), np.float32(9)])
    assert act_dcf(np.array([threshold, -9.0]), is_target) == 0
    assert act_dcf(np.array([below, -9], dtype=np.float32), is_target) == 1
    assert act_dcf(np.array([above, -9], dtype=np.float32), is_target) == 0


@given(
    values=st.lists(st.tuples(st.integers(-40, 40), st.booleans()), min_size=2, max_size=40),
    p_target=st.sampled_from([0.001, 0.01, 0.3, 0.5, 0.9]),
)
def test_actual_cost_is_never_below_the_minimum(values: list[tuple[int, bool]], p_target: float) -> None:
    scores, is_target = np.array([v[0] / 4 for v in values]), np.array([v[1] for v in values])
    assume(0 < is_target.sum() < len(values))
    assert act_dcf(scores, is_target, p_target=p_target) >= min_dcf(scores, is_target, p_target=p_target) - 1e-12


def test_all_measures_at_once_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, is_target = draw(300, 700, 2)
    found = measure_scores(sort_scores(scores, is_target), p_targets=(0.01, 0.2))
    assert (found.num_target, found.num_nontarget) == (300, 700)
    assert (found.eer, found.eer_threshold) == equal_error(sort_scores(scores, is_target))
    for cost, p_target in zip(found.costs, (0.01, 0.2), strict=True):
        assert cost.p_target == p_target
        assert cost.min_dcf == min_dcf(scores, is_target, p_target=p_target)
        assert cost.act_dcf == act_dcf(scores, is_target, p_target=p_target)
    monkeypatch.setattr(sorted_scores, "POINTS_PER_BLOCK", 7)
    assert measure_scores(sort_scores(scores, is_target), p_targets=(0.01, 0.2)) == found


def test_float32_scores_give_what_the_same_values_give_in_float64() -> None:
    scores, is_target = draw(500, 500, 2)
    single = scores.astype(np.float32)
    assert verify_scores(single, is_target) == verify_scores(single.astype(np.float64), is_target)


def test_equal_scores_are_worth_nothing() -> None:
    found = measure_scores(sort_scores(np.full(9, 3.5), np.arange(9) < 2))
    assert (found.eer, found.costs[0].min_dcf, found.min_cllr) == (0.5, 1.0, pytest.approx(1.0))
    assert found.eer_threshold == 3.5


def test_conditions_are_measured_apart_and_those_of_one_class_not_at_all() -> None:
    scores, is_target = draw(60, 240, 3)
    conditions = (np.arange(300) % 3).astype(np.int16)
    conditions[~is_target & (conditions == 2)] = 0
    pairs = Pairs(
        enrolment=np.zeros(300, np.int32), test=np.zeros(300, np.int32), is_target=is_target, conditions=conditions
    )
    found = measure_conditions(scores, pairs, ("interview", "song", "play", "speech"), p_targets=(0.05,))
    assert list(found) == ["interview", "song", "play", "speech"]
    assert found["play"] is found["speech"] is None
    song = found["song"]
    assert song is not None
    assert song.eer == eer(scores[conditions == 1], is_target[conditions == 1])
    assert song.costs[0].min_dcf == min_dcf(scores[conditions == 1], is_target[conditions == 1], p_target=0.05)
