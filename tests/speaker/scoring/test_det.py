import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import det_curve as det_of_sklearn

from greensv.speaker.scoring.det import det_curve, normal_deviates
from greensv.speaker.scoring.sorted_scores import sort_scores


def test_curve_of_few_scores_has_every_point_of_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    scores, is_target = rng.normal(size=200).round(1), rng.random(200) < 0.3
    scores[is_target] += 1
    curve = det_curve(sort_scores(scores, is_target))
    false_accept, miss, _ = det_of_sklearn(is_target, scores)
    found = set(zip(curve.false_accept.round(9).tolist(), curve.miss.round(9).tolist(), strict=True))
    assert set(zip(false_accept.round(9).tolist(), miss.round(9).tolist(), strict=True)) <= found
    assert len(curve) == len(np.unique(scores)) + 1


def test_curve_of_many_scores_is_thinned_to_exact_points_from_end_to_end() -> None:
    rng = np.random.default_rng(1)
    is_target = np.arange(60_000) < 20_000
    scores = (rng.normal(size=60_000) + 2 * is_target).astype(np.float32)
    curve = det_curve(sort_scores(scores, is_target), points_per_class=100)
    assert len(curve) <= 201
    assert (curve.false_accept[0], curve.miss[0]) == (0, 1)
    assert (curve.false_accept[-1], curve.miss[-1]) == (1, 0)
    assert (np.diff(curve.miss) <= 0).all()
    assert (np.diff(curve.false_accept) >= 0).all()
    for place in (1, 60, 120, len(curve) - 1):
        assert curve.miss[place] == (scores[is_target] < curve.thresholds[place]).mean()
        assert curve.false_accept[place] == (scores[~is_target] >= curve.thresholds[place]).mean()
    # On the axes of the plot, no step between 0.1 % and 99 % is wider than a line.
    inner = (curve.miss > 0.001) & (curve.miss < 0.99)
    assert np.abs(np.diff(normal_deviates(curve.miss[inner]))).max() < 0.3


def test_normal_deviates_are_those_of_scipy() -> None:
    rates = np.array([0, 1e-7, 0.02, 0.5, 0.9, 1])
    assert normal_deviates(rates) == pytest.approx(norm.ppf(rates))
