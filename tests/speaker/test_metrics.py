import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from greensv.errors import DataError
from greensv.speaker.dataset import Pairs
from greensv.speaker.metrics import bootstrap_eer, eer, min_dcf, verify_scores

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


def population(num_speakers: int, spread: float = 1.0) -> tuple[NDArray[np.float64], Pairs, NDArray[np.int32]]:
    """All pairs of four utterances per speaker, scored by the cosine of noisy speaker vectors."""
    rng = np.random.default_rng(5)
    speakers = np.repeat(np.arange(num_speakers, dtype=np.int32), 4)
    vectors = rng.normal(size=(num_speakers, 8))[speakers] + spread * rng.normal(size=(len(speakers), 8))
    first, second = (side.astype(np.int32) for side in np.triu_indices(len(speakers), 1))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = (unit[first] * unit[second]).sum(1).round(2)
    return scores, Pairs(enrolment=first, test=second, is_target=speakers[first] == speakers[second]), speakers


def test_one_resample_equals_scikit_learns_weighted_curve() -> None:
    scores, pairs, speakers = population(12)
    low, high = bootstrap_eer(scores, pairs, speakers, num_resamples=1, seed=3)
    drawn = np.random.default_rng(np.random.SeedSequence(3)).multinomial(12, np.full(12, 1 / 12)).astype(float)
    a, b = speakers[pairs.enrolment], speakers[pairs.test]
    weights = np.where(a == b, drawn[a], drawn[a] * drawn[b])
    assert low == high == pytest.approx(eer_of_sklearn(scores, pairs.is_target, weights))


def test_interval_holds_the_eer_and_narrows_with_more_speakers() -> None:
    widths = []
    for num_speakers in (10, 80):
        scores, pairs, speakers = population(num_speakers)
        low, high = bootstrap_eer(scores, pairs, speakers, num_resamples=300, seed=0)
        assert 0 <= low < eer(scores, pairs.is_target) < high <= 1
        widths.append(high - low)
    assert widths[1] < widths[0] / 1.5


def test_interval_is_a_function_of_the_seed() -> None:
    scores, pairs, speakers = population(15)
    again = [bootstrap_eer(scores, pairs, speakers, num_resamples=50, seed=seed) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_resamples_without_a_class_are_drawn_again() -> None:
    # Two speakers: half of the resamples draw one of them twice and have no nontarget pair.
    pairs = Pairs(
        enrolment=np.array([0, 2, 0, 1], dtype=np.int32),
        test=np.array([1, 3, 2, 3], dtype=np.int32),
        is_target=np.array([True, True, False, False]),
    )
    low, high = bootstrap_eer([0.9, 0.1, 0.2, 0.3], pairs, np.array([0, 0, 1, 1], dtype=np.int32), num_resamples=20)
    assert low == high == pytest.approx(0.5)


def test_interval_needs_two_speakers() -> None:
    pairs = Pairs(
        enrolment=np.array([0, 0], dtype=np.int32),
        test=np.array([1, 2], dtype=np.int32),
        is_target=np.array([True, False]),
    )
    with pytest.raises(DataError, match="two speakers at least"):
        bootstrap_eer([1.0, 0.0], pairs, np.zeros(3, dtype=np.int32))
