import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from greensv.speaker.scoring import llr, sorted_scores
from greensv.speaker.scoring.llr import cllr, min_cllr, roc_hull
from greensv.speaker.scoring.sorted_scores import sort_scores


def min_cllr_of_sklearn(scores: NDArray[np.float64], is_target: NDArray[np.bool_]) -> float:
    """The Cllr of log-likelihood ratios from scikit-learn's pool-adjacent-violators."""
    posterior = IsotonicRegression().fit_transform(scores, is_target.astype(float))
    num_target, num_nontarget = is_target.sum(), (~is_target).sum()
    with np.errstate(divide="ignore"):
        ratios = np.log(posterior) - np.log1p(-posterior) - np.log(num_target / num_nontarget)
    bits = np.where(is_target, np.logaddexp(0, -ratios), np.logaddexp(0, ratios)) / np.log(2)
    return float((bits[is_target].mean() + bits[~is_target].mean()) / 2)


def test_cllr_by_hand() -> None:
    # Targets at ln 3 and 0: log2(1 + 1/3) = 0.415 and 1; one nontarget at -ln 7: log2(1 + 1/7) = 0.193.
    found = cllr(sort_scores([np.log(3), 0, -np.log(7)], [True, True, False]))
    assert found == pytest.approx(((np.log2(4 / 3) + 1) / 2 + np.log2(8 / 7)) / 2)
    assert cllr(sort_scores([0.0, 0, 0], [True, False, False])) == pytest.approx(1)


def test_huge_scores_do_not_overflow() -> None:
    right = sort_scores([5e4, -5e4], [True, False])
    wrong = sort_scores([-5e4, 5e4], [True, False])
    assert cllr(right) == 0
    assert cllr(wrong) == pytest.approx(5e4 / np.log(2))
    assert min_cllr(wrong) == pytest.approx(1)


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("sizes", [(3, 5), (40, 1000), (1500, 900)])
def test_min_cllr_equals_that_of_scikit_learns_isotonic_regression(sizes: tuple[int, int], decimals: int) -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(1, 1, sizes[0]), rng.normal(-1, 2, sizes[1])]).round(decimals)
    is_target = np.arange(len(scores)) < sizes[0]
    assert min_cllr(sort_scores(scores, is_target)) == pytest.approx(min_cllr_of_sklearn(scores, is_target), abs=1e-9)


@given(
    values=st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40),
    scale=st.floats(0.1, 9),
    shift=st.floats(-5, 5),
)
def test_no_rising_map_has_a_lower_cllr(values: list[tuple[int, bool]], scale: float, shift: float) -> None:
    scores, is_target = np.array([v[0] for v in values], dtype=float), np.array([v[1] for v in values])
    assume(0 < is_target.sum() < len(values))
    least = min_cllr(sort_scores(scores, is_target))
    assert 0 <= least <= 1 + 1e-12
    assert least <= cllr(sort_scores(scale * scores + shift, is_target)) + 1e-12
    assert min_cllr(sort_scores(np.exp(scores), is_target)) == pytest.approx(least)


def test_blocks_and_rounds_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    scores, is_target = rng.normal(size=3000).round(2), rng.random(3000) < 0.4
    scores[is_target] += 1
    ordered = sort_scores(scores, is_target)
    corners, costs = roc_hull(ordered), (cllr(ordered), min_cllr(ordered))
    monkeypatch.setattr(sorted_scores, "POINTS_PER_BLOCK", 50)
    monkeypatch.setattr(llr, "SCORES_PER_BLOCK", 50)
    monkeypatch.setattr(llr, "_FEW_CORNERS", 3)
    again = roc_hull(ordered)
    assert all(np.array_equal(a, b) for a, b in zip(corners, again, strict=True))
    assert (cllr(ordered), min_cllr(ordered)) == pytest.approx(costs, abs=1e-12)


def test_hull_is_convex_and_above_every_point() -> None:
    rng = np.random.default_rng(1)
    scores, is_target = rng.normal(size=500).round(1), rng.random(500) < 0.5
    ordered = sort_scores(scores, is_target)
    accepted, hit = roc_hull(ordered)
    assert (accepted[0], hit[0]) == (0, 0)
    assert (accepted[-1], hit[-1]) == (len(ordered.nontarget), len(ordered.target))
    run, rise = np.diff(accepted), np.diff(hit)
    assert (rise[:-1] * run[1:] > rise[1:] * run[:-1]).all()
    for threshold in np.unique(scores):
        reached = np.interp(ordered.num_accepted(threshold), accepted, hit)
        assert len(ordered.target) - ordered.num_missed(threshold) <= reached + 1e-9
